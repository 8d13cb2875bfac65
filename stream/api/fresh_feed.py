"""The latest matches of each reader in this process, and who waits for the next one.

A stream has a cursor into its reader's ring instead of a queue of its own: a slow client costs no memory, it misses the
oldest and is told so. A cursor is a match's place in the topic, which is the same in every API process, so a client may
come back to another one.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import contextmanager
from logging import getLogger
from typing import Any, Protocol

import aiokafka
import msgspec
from aiokafka.errors import KafkaError
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from schemas.config import Matches
from schemas.names import Topic
from stream import monitoring
from stream.kafka_access import Broker, aiokafka_options

_log = getLogger(__name__)

BATCH_RECORDS = 500
_POLL_MS = 200
_PLACE_CHARACTERS = 40


class Place(msgspec.Struct, frozen=True, order=True):
    """Where a match stands in the topic; a reader's matches are all in one partition."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}-{self.offset}"


class HeldMatch(msgspec.Struct, frozen=True):
    place: Place
    value: bytes  # as the topic has it: most are never asked for


class News(msgspec.Struct, frozen=True):
    """What has come for a reader since a cursor. `missed`: there was more, which is no longer held."""

    matches: tuple[HeldMatch, ...] = ()
    missed: bool = False


class MatchRecord(Protocol):
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


def place_of(text: str) -> Place | None:
    """The inverse of `str(place)`; None for anything else, as clients send what they like."""
    partition, _, offset = text.partition("-")
    numbers = partition + offset
    if not (partition and offset and numbers.isascii() and numbers.isdigit() and len(text) <= _PLACE_CHARACTERS):
        return None
    return Place(int(partition), int(offset))


class _Ring:
    def __init__(self, length: int) -> None:
        self.held: deque[HeldMatch] = deque(maxlen=length)
        self.dropped: Place | None = None  # the latest one that is no longer held

    def append(self, match: HeldMatch) -> int:
        """By how many it has grown."""
        grown = 1
        if len(self.held) == self.held.maxlen:
            self.dropped, grown = self.held[0].place, 0
        self.held.append(match)
        return grown


class FreshFeed:
    def __init__(self, settings: Matches) -> None:
        self._settings = settings
        self._rings: OrderedDict[str, _Ring] = OrderedDict()  # the reader who was told last comes last
        self._held = self._open = 0
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._closed = False

    @property
    def is_full(self) -> bool:
        return self._open >= self._settings.max_streams

    def apply(self, records: Iterable[MatchRecord]) -> None:
        """Records of the topic; those that were read before change nothing."""
        for record in records:
            if record.key is not None and record.value is not None:
                place = Place(record.partition, record.offset)
                self._note(record.key.decode(errors="replace"), HeldMatch(place, record.value))

    def _note(self, user_id: str, match: HeldMatch) -> None:
        ring = self._rings.setdefault(user_id, _Ring(self._settings.held_per_reader))
        if ring.held and match.place <= ring.held[-1].place:
            return
        self._held += ring.append(match)
        self._rings.move_to_end(user_id)
        while self._held > self._settings.held_matches:
            self.forget(next(iter(self._rings)))
        for waiting in self._waiting.get(user_id, ()):
            waiting.set()

    def forget(self, user_id: str) -> None:
        ring = self._rings.pop(user_id, None)
        self._held -= len(ring.held) if ring else 0

    def latest(self, user_id: str) -> Place:
        """The cursor of who wants only what is yet to come."""
        ring = self._rings.get(user_id)
        return ring.held[-1].place if ring else Place(0, -1)

    def since(self, user_id: str, cursor: Place) -> News:
        """What is held after `cursor`; all that is held when the cursor is of another partition than the reader's."""
        ring = self._rings.get(user_id)
        if ring is None:
            return News()
        if cursor.partition != ring.held[-1].place.partition:
            return News(tuple(ring.held))
        missed = ring.dropped is not None and cursor < ring.dropped
        return News(tuple(one for one in ring.held if one.place > cursor), missed)

    async def news(self, user_id: str, cursor: Place, *, seconds: float) -> AsyncGenerator[News, None]:
        """What comes after `cursor`, as it comes, for so many seconds or until `close`; News() when all is silent."""
        ends_at = asyncio.get_running_loop().time() + seconds
        with self._listening(user_id) as woken:
            while not self._closed and asyncio.get_running_loop().time() < ends_at:
                woken.clear()
                found = self.since(user_id, cursor)
                if found.matches:
                    cursor = found.matches[-1].place
                    yield found
                elif not await _set_within(woken, self._settings.heartbeat_seconds):
                    yield News()

    def close(self) -> None:
        """End all streams, and every one that is opened from now on."""
        self._closed = True
        for waiting in self._waiting.values():
            for woken in waiting:
                woken.set()

    @contextmanager
    def _listening(self, user_id: str) -> Iterator[asyncio.Event]:
        woken = asyncio.Event()
        self._waiting.setdefault(user_id, set()).add(woken)
        self._count(+1)
        try:
            yield woken
        finally:
            self._count(-1)
            self._waiting[user_id].discard(woken)
            if not self._waiting[user_id]:
                del self._waiting[user_id]

    def _count(self, change: int) -> None:
        self._open += change
        monitoring.FRESH_STREAMS.set(self._open)


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


class FreshFollower:
    """Fills a feed from the topic: every API process reads all of it, without a consumer group."""

    def __init__(self, broker: Broker, feed: FreshFeed) -> None:
        self._broker, self._feed = broker, feed
        self._positions: dict[Any, int] = {}  # where to go on after the broker was away

    async def follow(self, since_ms: int) -> None:
        """Until cancelled; from what was written at `since_ms`, so that clients of an earlier process may come back."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type((KafkaError, OSError)),
            wait=wait_random_exponential(multiplier=0.5, max=10),
            before_sleep=lambda call: _log.warning("fresh matches: %r", call.outcome and call.outcome.exception()),
        ):
            with attempt:
                await self._follow(since_ms)

    async def _follow(self, since_ms: int) -> None:
        consumer = aiokafka.AIOKafkaConsumer(
            Topic.FRESH_MATCHES,
            **aiokafka_options(self._broker),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="latest",
        )
        try:
            await consumer.start()
            await self._seek(consumer, since_ms)
            while True:
                found = await consumer.getmany(timeout_ms=_POLL_MS, max_records=BATCH_RECORDS)
                for partition, records in found.items():
                    self._feed.apply(records)
                    self._positions[partition] = records[-1].offset + 1
                await asyncio.sleep(0)  # let requests in
        finally:
            await consumer.stop()

    async def _seek(self, consumer: Any, since_ms: int) -> None:
        assigned = list(consumer.assignment())
        found = await consumer.offsets_for_times(dict.fromkeys(assigned, since_ms))
        ends = await consumer.end_offsets(assigned)
        for partition in assigned:
            at = found.get(partition)
            consumer.seek(partition, self._positions.get(partition, at.offset if at else ends[partition]))
            self._positions.setdefault(partition, at.offset if at else ends[partition])
