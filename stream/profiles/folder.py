"""Folds a batch of events and erasures into the profile table and sends the query requests that become due.

Independent of Faust: the table and the producer are passed in. Everything that a batch causes is acknowledged by the
broker when `process` returns, so the caller may then acknowledge its input.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from schemas.cleaning import Dropped, clean_event
from schemas.codec import Codec
from schemas.codecs import JSON_CODECS, Codecs
from schemas.config import Config, Refresh
from schemas.errors import InvalidRecord, KeenstreamError, PartitionsMoved, RetryableError, WithoutConsent
from schemas.event import Event, check_time
from schemas.names import Topic
from schemas.profile import UserProfile, fingerprint, latest_signals, signal_count
from schemas.queries import QueryRequest
from stream import monitoring
from stream.dead_letters import SourceRecord, dead_letter, refuses_consent
from stream.producer import Outgoing, Producer
from stream.profiles.erasing import check_erasure, erase_record, tombstone
from stream.profiles.pending import PendingRefreshes
from stream.profiles.record import ProfileRecord, decode_record, encode_record
from stream.profiles.refresh import due_at, fold_record, mark_requested, should_refresh

STAGE = "profiles"
Key = tuple[int, bytes]  # partition, user_id


class EventRecord(SourceRecord, Protocol):
    """A consumed record of events or of erasures."""

    @property
    def timestamp_ms(self) -> int: ...


class ProfileTable(Protocol):
    """The durable table, by partition (`stream.transport.StateTable`)."""

    def row(self, partition: int, key: bytes) -> bytes | None: ...

    async def write(self, rows: Mapping[int, Mapping[bytes, bytes]]) -> None:
        """Returns when the broker has all rows. After an error the table may hold rows that are not stored."""


class Folded:
    """What a batch comes to: rows by reader, how many signals each erased reader lost, and the dead letters."""

    def __init__(self) -> None:
        self.rows: dict[Key, ProfileRecord] = {}
        self.erased: dict[Key, int] = {}
        self.letters: list[Outgoing] = []
        self.changing = self.unchanged = 0  # events
        self.dropped: Counter[str] = Counter()  # events, by reason


class RowsNotStored(KeenstreamError):
    """The table may be ahead of its changelog; a restart restores what the broker has and reads the events again."""


class RowsMoved(RowsNotStored):
    """Another worker holds their partitions by now, and the table is as it was."""


class ProfileFolder:
    """One worker's fold. `process` and `refresh_due` exclude each other, as both read and write rows."""

    def __init__(
        self,
        config: Config,
        table: ProfileTable,
        producer: Producer,
        clock_ms: Callable[[], int],
        codecs: Codecs = JSON_CODECS,
    ) -> None:
        self._config = config
        self._table = table
        self._producer = producer
        self._clock_ms = clock_ms
        self._codecs = codecs
        self._pending = PendingRefreshes()
        self._rows = asyncio.Lock()

    async def process(self, records: Sequence[EventRecord]) -> None:
        """Fold `records`. Raises RetryableError when a part is away; calling again with the same records is right."""
        async with self._rows:
            now_ms = self._clock_ms()
            folded = self._fold(records, now_ms)
            await self._producer.send(folded.letters)
            await self._request_and_write(folded.rows, now_ms, folded.erased)
        monitoring.DEAD_LETTERS.labels(STAGE).inc(len(folded.letters))

    async def refresh_due(self, assigned: Callable[[int], bool]) -> None:
        """Send the requests that have become due with time, for the partitions that are `assigned` to this worker."""
        async with self._rows:
            now_ms = self._clock_ms()
            keys = [key for key in self._pending.due(now_ms) if assigned(key[0])]
            try:
                await self._request_and_write({key: self._stored(key) for key in keys}, now_ms)
            except (RetryableError, RowsMoved) as error:
                for key in keys:
                    self._pending.note(key, now_ms)
                if not isinstance(error, RowsMoved):  # else whoever holds them now asks too, which changes nothing
                    raise
        monitoring.REFRESHES_WAITING.set(len(self._pending))

    def recover(self, partition: int, rows: Mapping[bytes, bytes]) -> None:
        """Note who waits among the `rows` of a partition that was just restored."""
        for user, data in rows.items():
            self._pending.note((partition, user), due_at(decode_record(data), self._config.refresh))

    def _fold(self, records: Sequence[EventRecord], now_ms: int) -> Folded:
        folded = Folded()
        for record in records:
            try:
                if record.topic == Topic.ERASURES:
                    self._erase(folded, record, now_ms)
                else:
                    self._fold_event(folded, record, now_ms)
            except InvalidRecord as error:
                if isinstance(error, WithoutConsent) or refuses_consent(record.value):
                    folded.dropped["no_consent"] += 1
                    continue
                if self._was_erased(folded, record):
                    folded.dropped["erased"] += 1
                    continue
                folded.letters.append(dead_letter(record, stage=STAGE, reason=str(error), failed_at_ms=now_ms))
        for reason, count in folded.dropped.items():
            monitoring.EVENTS_DROPPED.labels(reason).inc(count)
        monitoring.EVENTS_FOLDED.inc(folded.changing)
        monitoring.EVENTS_UNCHANGED.inc(folded.unchanged)
        return folded

    def _was_erased(self, folded: Folded, record: EventRecord) -> bool:
        """Whether a broken event was there before its reader's erasure: no letter may bring its bytes back."""
        if record.topic == Topic.ERASURES or record.key is None:
            return False
        row, data = folded.rows.get((record.partition, record.key)), self._table.row(record.partition, record.key)
        row = row or (decode_record(data) if data else None)
        return row is not None and 0 < record.timestamp_ms <= row.profile.erased_before

    def _fold_event(self, folded: Folded, record: EventRecord, now_ms: int) -> None:
        event = self._decode(record, now_ms)
        if isinstance(event, Dropped):
            folded.dropped[event.reason] += 1
            return
        key = record.partition, event.user_id.encode()
        before = folded.rows.get(key) or self._stored(key)
        after = self._fold_one(before, event, now_ms, record.timestamp_ms)
        if after is before:
            folded.unchanged += 1
            return
        folded.changing += 1
        folded.rows[key] = after

    def _erase(self, folded: Folded, record: EventRecord, now_ms: int) -> None:
        """Signals of this batch that the erasure covers count as removed, whichever of the two was read first."""
        if record.value is None:
            return
        erasure = check_erasure(self._codecs.erasures.decode(record.value), record.key, now_ms=now_ms)
        key = record.partition, erasure.user_id.encode()
        before = folded.rows.get(key) or self._stored(key)
        folded.rows[key] = after = erase_record(before, erasure)
        gone = signal_count(before.profile) - signal_count(after.profile)
        folded.erased[key] = folded.erased.get(key, 0) + gone

    def _decode(self, record: EventRecord, now_ms: int) -> Event | Dropped:
        event = self._codecs.events.decode(record.value)
        if not event.consent:  # before any rule whose breach would keep the bytes in a dead letter
            return Dropped("no_consent")
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

    async def _request_and_write(
        self, changed: Mapping[Key, ProfileRecord], now_ms: int, erased: Mapping[Key, int] | None = None
    ) -> None:
        """Requests first: a crash before the rows are written asks again, which the fingerprint makes harmless.

        An erased reader's older requests and lists go by a tombstone; what is left of the reader is asked for anew.
        """
        settings, erased = self._config.refresh, erased or {}
        due = {key: record for key, record in changed.items() if _asks(record, key in erased, settings, now_ms)}
        tombstones = [tombstone(changed[key].profile, gone) for key, gone in erased.items()]
        await self._producer.send(
            [*tombstones, *(_request(record, self._codecs.requests, now_ms) for record in due.values())]
        )
        rows = {**changed, **{key: mark_requested(record, now_ms) for key, record in due.items()}}
        await self._write(rows)
        for key, record in rows.items():
            self._pending.note(key, due_at(record, settings))
        monitoring.REQUESTS_SENT.inc(len(due))
        monitoring.READERS_ERASED.inc(len(erased))
        monitoring.PROFILES_WRITTEN.inc(len(rows))

    async def _write(self, rows: Mapping[Key, ProfileRecord]) -> None:
        by_partition: dict[int, dict[bytes, bytes]] = {}
        for (partition, user), record in rows.items():
            by_partition.setdefault(partition, {})[user] = encode_record(record)
        try:
            await self._table.write(by_partition)
        except PartitionsMoved as error:
            raise RowsMoved(str(error)) from error
        except RetryableError as error:
            raise RowsNotStored(str(error)) from error


def _asks(record: ProfileRecord, erased: bool, settings: Refresh, now_ms: int) -> bool:
    """What is left of an erased reader is asked for anew, unless all of it is from a clock that is ahead: that was sent
    before the erasure, which goes on to remove it."""
    if erased:
        return any(signal.occurred_at <= now_ms for _, signal in latest_signals(record.profile))
    return should_refresh(record, settings, now_ms)


def _request(record: ProfileRecord, codec: Codec[QueryRequest], now_ms: int) -> Outgoing:
    request = QueryRequest(
        user_id=record.profile.user_id,
        profile=record.profile,
        profile_fingerprint=fingerprint(record.profile),
        requested_at=now_ms,
        accepted_at=record.refresh.accepted_at,
    )
    return Outgoing(Topic.QUERY_REQUESTS, request.user_id.encode(), codec.encode(request))
