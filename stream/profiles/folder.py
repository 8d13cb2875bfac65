"""Folds a batch of event records into the profile table and sends the query requests that become due.

Independent of Faust: the table and the producer are passed in. Everything that a batch causes is acknowledged by the
broker when `process` returns, so the caller may then acknowledge its input.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from schemas.cleaning import Dropped, clean_event
from schemas.codec import EVENTS, REQUESTS, Codec
from schemas.config import Config
from schemas.errors import InvalidRecord, KeenstreamError, RetryableError
from schemas.event import Event, check_time
from schemas.names import Topic
from schemas.profile import UserProfile, fingerprint
from schemas.queries import QueryRequest
from stream import monitoring
from stream.dead_letters import SourceRecord, dead_letter
from stream.producer import Outgoing, Producer
from stream.profiles.pending import PendingRefreshes
from stream.profiles.record import ProfileRecord, decode_record, encode_record
from stream.profiles.refresh import due_at, fold_record, mark_requested, should_refresh

STAGE = "profiles"
Key = tuple[int, bytes]  # partition, user_id


class EventRecord(SourceRecord, Protocol):
    """A consumed event record."""

    @property
    def timestamp_ms(self) -> int: ...


class ProfileTable(Protocol):
    """The durable table, by partition (`stream.transport.StateTable`)."""

    def row(self, partition: int, key: bytes) -> bytes | None: ...

    async def write(self, rows: Mapping[int, Mapping[bytes, bytes]]) -> None:
        """Returns when the broker has all rows. After an error the table may hold rows that are not stored."""


class RowsNotStored(KeenstreamError):
    """The table may be ahead of its changelog; a restart restores what the broker has and reads the events again."""


class ProfileFolder:
    """One worker's fold. `process` and `refresh_due` exclude each other, as both read and write rows."""

    def __init__(
        self,
        config: Config,
        table: ProfileTable,
        producer: Producer,
        clock_ms: Callable[[], int],
        codec: Codec[Event] = EVENTS,
    ) -> None:
        self._config = config
        self._table = table
        self._producer = producer
        self._clock_ms = clock_ms
        self._codec = codec
        self._pending = PendingRefreshes()
        self._rows = asyncio.Lock()

    async def process(self, records: Sequence[EventRecord]) -> None:
        """Fold `records`. Raises RetryableError when a part is away; calling again with the same records is right."""
        async with self._rows:
            now_ms = self._clock_ms()
            changed, letters = self._fold(records, now_ms)
            await self._producer.send(letters)
            await self._request_and_write(changed, now_ms)
        monitoring.DEAD_LETTERS.labels(STAGE).inc(len(letters))

    async def refresh_due(self, assigned: Callable[[int], bool]) -> None:
        """Send the requests that have become due with time, for the partitions that are `assigned` to this worker."""
        async with self._rows:
            now_ms = self._clock_ms()
            keys = [key for key in self._pending.due(now_ms) if assigned(key[0])]
            try:
                await self._request_and_write({key: self._stored(key) for key in keys}, now_ms)
            except RetryableError:
                for key in keys:
                    self._pending.note(key, now_ms)
                raise
        monitoring.REFRESHES_WAITING.set(len(self._pending))

    def recover(self, partition: int, rows: Mapping[bytes, bytes]) -> None:
        """Note who waits among the `rows` of a partition that was just restored."""
        for user, data in rows.items():
            self._pending.note((partition, user), due_at(decode_record(data), self._config.refresh))

    def _fold(self, records: Sequence[EventRecord], now_ms: int) -> tuple[dict[Key, ProfileRecord], list[Outgoing]]:
        changed: dict[Key, ProfileRecord] = {}
        letters: list[Outgoing] = []
        folded = unchanged = 0
        for record in records:
            try:
                event = self._decode(record, now_ms)
            except InvalidRecord as error:
                letters.append(dead_letter(record, stage=STAGE, reason=str(error), failed_at_ms=now_ms))
                continue
            if isinstance(event, Dropped):
                monitoring.EVENTS_DROPPED.labels(event.reason).inc()
                continue
            key = record.partition, event.user_id.encode()
            before = changed.get(key) or self._stored(key)
            after = self._fold_one(before, event, now_ms, record.timestamp_ms)
            if after is before:
                unchanged += 1
                continue
            folded += 1
            changed[key] = after
        monitoring.EVENTS_FOLDED.inc(folded)
        monitoring.EVENTS_UNCHANGED.inc(unchanged)
        return changed, letters

    def _decode(self, record: EventRecord, now_ms: int) -> Event | Dropped:
        event = self._codec.decode(record.value)
        if record.key != event.user_id.encode():
            raise InvalidRecord(
                "the record's key is not its user_id: set the key, so that a reader stays in one partition"
            )
        check_time(event, now_ms=now_ms, skew_ms=int(self._config.profiles.future_skew_seconds * 1000))
        return clean_event(event, languages=self._config.profiles.languages)

    def _fold_one(self, before: ProfileRecord, event: Event, now_ms: int, accepted_at: int) -> ProfileRecord:
        return fold_record(
            before,
            event,
            settings=self._config.refresh,
            signals_per_domain=self._config.profiles.signals_per_domain,
            now_ms=now_ms,
            accepted_at=accepted_at,
        )

    def _stored(self, key: Key) -> ProfileRecord:
        data = self._table.row(*key)
        return decode_record(data) if data else ProfileRecord(UserProfile(key[1].decode()))

    async def _request_and_write(self, changed: Mapping[Key, ProfileRecord], now_ms: int) -> None:
        """Requests first: a crash before the rows are written asks again, which the fingerprint makes harmless."""
        settings = self._config.refresh
        due = {key: record for key, record in changed.items() if should_refresh(record, settings, now_ms)}
        await self._producer.send([_request(record, now_ms) for record in due.values()])
        rows = {**changed, **{key: mark_requested(record, now_ms) for key, record in due.items()}}
        await self._write(rows)
        for key, record in rows.items():
            self._pending.note(key, due_at(record, settings))
        monitoring.REQUESTS_SENT.inc(len(due))
        monitoring.PROFILES_WRITTEN.inc(len(rows))

    async def _write(self, rows: Mapping[Key, ProfileRecord]) -> None:
        by_partition: dict[int, dict[bytes, bytes]] = {}
        for (partition, user), record in rows.items():
            by_partition.setdefault(partition, {})[user] = encode_record(record)
        try:
            await self._table.write(by_partition)
        except RetryableError as error:
            raise RowsNotStored(str(error)) from error


def _request(record: ProfileRecord, now_ms: int) -> Outgoing:
    request = QueryRequest(
        user_id=record.profile.user_id,
        profile=record.profile,
        profile_fingerprint=fingerprint(record.profile),
        requested_at=now_ms,
        accepted_at=record.refresh.accepted_at,
    )
    return Outgoing(Topic.QUERY_REQUESTS, request.user_id.encode(), REQUESTS.encode(request))
