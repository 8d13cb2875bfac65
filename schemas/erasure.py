"""A reader's wish to be forgotten, and the receipt of what came of it.

Receipts are printed, answered over HTTP and kept by whoever asked: their JSON is stable. They hold counts, times and
the reader's id, and never a text of the reader.
"""

from typing import Literal

import msgspec

from schemas.event import Identifier, Milliseconds


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing of the reader from before `erased_before` (inclusive) is kept, nor taken when it comes late."""

    user_id: Identifier
    erased_before: Milliseconds
    requested_at: Milliseconds


StoreName = Literal[
    "profile",  # the profile table and its changelog
    "requests",  # query-requests: what waits for a list
    "lists",  # query-lists: what was written
    "queries",  # Milvus, user_queries
    "dead_letters",
    "archive",  # Parquet files
    "events",  # the topics that follow keep every record for their time
    "exposures",
    "outcomes",
    "fresh_matches",
]
StoreState = Literal[
    "clean",  # nothing of the reader is left that a reader of this store is given
    "under way",  # asked for and durable, not yet confirmed: see `detail`
    "kept",  # an append-only log: its records go by themselves, at `gone_by` at the latest
    "left",  # something is left and nothing is on its way to remove it: see `detail`
    "absent",  # this installation has no such store
]


class StoreReceipt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one store. `found` and `removed` count in `unit`; null = not counted (`erase --verify` does)."""

    store: StoreName
    state: StoreState
    unit: str
    found: int | None = None
    removed: int | None = None
    at: int | None = None  # UTC ms at which the store was clean
    gone_by: int | None = None  # UTC ms by which Kafka has dropped what its log still holds of older records
    seconds: float | None = None  # where it is worth telling: the archive
    detail: str = ""
    files: tuple[str, ...] = ()  # of the archive: rewritten


class ErasureReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What was found and removed, store by store. `complete`: nothing is under way or left."""

    version: int = 1
    user_id: str
    erased_before: int  # UTC ms
    requested_at: int  # UTC ms
    answered_at: int  # UTC ms
    online_seconds: float  # until everything that serves readers was clean, or the wait was over
    found_anything: bool
    complete: bool
    stores: tuple[StoreReceipt, ...]


class StoreSearch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a search of one store found of a reader from before the erasure."""

    store: StoreName
    unit: str
    left: int | None  # null = could not be searched: see `detail`
    waiting: int = 0  # older records that Kafka has yet to drop from its log; no reader of the store is given them
    gone_by: int | None = None  # UTC ms: until then
    detail: str = ""


class ErasureSearch(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of `erase --verify`. `clean`: every store could be searched and nothing is left."""

    version: int = 1
    user_id: str
    erased_before: int | None  # UTC ms; null = nobody has asked for this reader's erasure
    searched_at: int  # UTC ms
    clean: bool
    stores: tuple[StoreSearch, ...]


def is_done(receipt: StoreReceipt) -> bool:
    return receipt.state in ("clean", "kept", "absent")
