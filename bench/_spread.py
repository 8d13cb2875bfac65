"""A figure with its lowest and highest value: machines are noisy."""

import statistics
from collections.abc import Sequence
from typing import Self

import msgspec


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Of a figure that was measured several times."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(median=statistics.median(values), lowest=min(values), highest=max(values))

    def __str__(self) -> str:
        return " ".join((_shown(self.median), f"({_shown(self.lowest)}–{_shown(self.highest)})"))


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.3g}"
