"""What a check of trust says: a number, a limit, and a sentence."""

from typing import Literal

import msgspec

Status = Literal["passed", "failed", "warning", "not enough data"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """`failed` blocks the verdict, `warning` does not."""

    name: str
    status: Status
    sentence: str
    value: float | None = None
