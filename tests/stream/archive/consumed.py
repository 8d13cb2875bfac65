"""Records as kafka-python gives them, and tables of them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pyarrow as pa

from schemas.codec import EVENTS
from schemas.event import Event
from schemas.names import Topic
from stream.archive.columns import Columns

NOON = 1_767_614_400_000  # 2026-01-05T12:00Z
DAY = 86_400_000
HOUR = 3_600_000


class Consumed(NamedTuple):
    """What is used of kafka-python's ConsumerRecord."""

    offset: int
    value: bytes | None
    key: bytes | None = b"reader"
    topic: str = Topic.USER_EVENTS
    partition: int = 0
    timestamp: int = NOON
    headers: Sequence[tuple[str, bytes]] = ()


def event(number: int, at: int = NOON, user: str = "reader", consent: bool = True) -> Event:
    return Event(
        event_id=f"e{number}", user_id=user, kind="page", text=f"text {number}", occurred_at=at, consent=consent
    )


def consumed(offset: int, at: int = NOON, user: str = "reader") -> Consumed:
    """An event whose number is its offset."""
    return Consumed(offset, EVENTS.encode(event(offset, at, user)), user.encode())


def event_rows(offsets: Iterable[int], at: int = NOON, user: str = "reader") -> pa.Table:
    """Rows of events at `offsets`."""
    return Columns(Topic.USER_EVENTS, EVENTS).build([consumed(offset, at, user) for offset in offsets], NOON).rows
