"""The API's local view of two compacted topics: every reader's profile, and which lists have just been written.

Both are read from their beginning and followed; the view is ready when it has reached the ends that were seen at the
start. Profiles are kept; of a list only the news that it was written is passed on, because the query vectors are in the
store. No consumer group: every API process reads everything.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from logging import getLogger
from typing import Any, Protocol

import aiokafka
from aiokafka.errors import KafkaError
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from schemas.codec import LISTS, Codec
from schemas.errors import InvalidRecord, Unavailable
from schemas.names import Topic
from schemas.profile import UserProfile, signal_count
from schemas.queries import QueryList
from stream import monitoring
from stream.api.profile_rows import ProfileRows
from stream.kafka_access import HOW_TO_START, Broker, aiokafka_options, ask_why, settings_of
from stream.retrying import until_done

_log = getLogger(__name__)

STAGE = "views"
BATCH_RECORDS = 200  # applied at once: about 3 ms in which no request is answered
CHECK_SECONDS = 2.0
_POLL_MS = 200
_NO_SIGNALS = b",[],[],[],"  # as the profile's canonical encoding has it; a text may hold it too


class ConsumedRecord(Protocol):
    @property
    def topic(self) -> str: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


class ReaderViews:
    """What the API knows of readers without asking anyone.

    `on_list` hears of each new list, `on_removed` of each reader whose profile or whose queries have been removed.
    """

    def __init__(
        self,
        rows: ProfileRows,
        decode_profile: Callable[[bytes], UserProfile],
        *,
        on_list: Callable[[QueryList], None],
        on_removed: Callable[[str], None],
        lists: Codec[QueryList] = LISTS,
    ) -> None:
        self._rows, self._decode_profile = rows, decode_profile
        self._on_list, self._on_removed, self._lists = on_list, on_removed, lists
        self.ready = False

    def profile(self, user_id: str) -> UserProfile | None:
        data = self._rows.get(user_id.encode())
        return None if data is None else self._decode_profile(data)

    def apply(self, records: Iterable[ConsumedRecord]) -> None:
        """Records of one topic in their order; a record without a value, or without signals, removes the reader.

        Raises RetryableError when a list cannot be decoded yet; applying the same records again is right.
        """
        profiles: list[tuple[bytes, bytes | None]] = []
        for record in records:
            if record.topic == Topic.PROFILES_CHANGELOG and record.key is not None:
                profiles.append((record.key, None if self._is_erased(record.value) else record.value))
            elif record.topic == Topic.QUERY_LISTS and record.value is not None:
                self._note_list(record.value)
            elif record.topic == Topic.QUERY_LISTS and record.key is not None:
                self._on_removed(record.key.decode(errors="replace"))
        if profiles:
            self._rows.apply(profiles)
        for key, value in profiles:
            if value is None:
                self._on_removed(key.decode(errors="replace"))

    def _is_erased(self, row: bytes | None) -> bool:
        """Such a row stays in the table, to keep late events out; to whoever asks, nothing is known of the reader."""
        # most rows are not decoded: this is a stream of all rows at the start
        return row is None or (_NO_SIGNALS in row and not signal_count(self._decode_profile(row)))

    def _note_list(self, value: bytes) -> None:
        try:
            self._on_list(self._lists.decode(value))
        except InvalidRecord as error:
            _log.warning("views: a record of %s is passed over: %s", Topic.QUERY_LISTS, error)


class ViewFollower:
    """Keeps `ReaderViews` up to date from Kafka; it starts again by itself when the broker was away."""

    def __init__(self, broker: Broker, views: ReaderViews) -> None:
        self._broker, self._bootstrap, self._views = broker, settings_of(broker).bootstrap, views
        self._consumer: Any = None
        self._targets: dict[Any, int] = {}

    async def follow(self) -> None:
        """Until cancelled. Reading anew from the beginning is harmless."""
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type((KafkaError, OSError, Unavailable)),
                wait=wait_random_exponential(multiplier=0.5, max=10),
                before_sleep=lambda call: _log.warning(
                    "views: Kafka at %s: %r", self._bootstrap, call.outcome and call.outcome.exception()
                ),
            ):
                with attempt:
                    await self._start()
                    while True:
                        await self._step()
        finally:
            await self._stop()

    async def check(self) -> None:
        """One real request to the broker. Raises Unavailable with what to do."""
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                if self._consumer is None:
                    told = await ask_why(self._broker)
                    raise Unavailable(told or f"Kafka at {self._bootstrap} has not answered yet: {HOW_TO_START}")
                await self._consumer.end_offsets(list(self._targets))
        except (KafkaError, TimeoutError, OSError) as error:
            raise Unavailable(f"Kafka at {self._bootstrap} does not answer: {HOW_TO_START}") from error

    async def _start(self) -> None:
        await self._stop()
        self._consumer = aiokafka.AIOKafkaConsumer(
            Topic.PROFILES_CHANGELOG,
            Topic.QUERY_LISTS,
            **aiokafka_options(self._broker),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        try:
            await self._consumer.start()
        except (KafkaError, OSError) as error:
            raise Unavailable(await ask_why(self._broker) or repr(error)) from error
        self._targets = await self._consumer.end_offsets(list(self._consumer.assignment()))

    async def _stop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    async def _apply(self, records: list[Any]) -> None:
        self._views.apply(records)

    async def _step(self) -> None:
        found: Mapping[Any, list[Any]] = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=BATCH_RECORDS)
        for records in found.values():
            await until_done(partial(self._apply, records), stage=STAGE)
            await asyncio.sleep(0)  # let requests in
        positions = {partition: await self._consumer.position(partition) for partition in self._targets}
        self._views.ready |= all(positions[partition] >= end for partition, end in self._targets.items())
        ends = {partition: self._consumer.highwater(partition) or 0 for partition in self._targets}
        monitoring.VIEW_LAG.set(sum(max(0, ends[partition] - at) for partition, at in positions.items()))
