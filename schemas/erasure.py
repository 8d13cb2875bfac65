"""A reader's wish to be forgotten."""

import msgspec

from schemas.event import Identifier, Milliseconds


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing of the reader from before `erased_before` (inclusive) is kept, nor taken when it comes late."""

    user_id: Identifier
    erased_before: Milliseconds
    requested_at: Milliseconds
