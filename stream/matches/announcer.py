"""The second step of the reverse path: what each reader is told, bounded by the hour.

Candidates are keyed by reader, so one worker at a time holds a reader's partition and its bound is exact however many
workers there are. Matches are sent before the memory of them is written and the input is acknowledged last: a crash
may announce again what it had just announced, under the same key, and nothing is lost.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from logging import getLogger
from typing import Protocol

import msgspec

from schemas.codec import MATCHES
from schemas.codecs import JSON_CODECS, Codecs
from schemas.config import Matches
from schemas.errors import InvalidRecord, KeenstreamError, RetryableError
from schemas.match import FreshMatch
from schemas.names import Topic
from stream import monitoring
from stream.dead_letters import SourceRecord, dead_letter
from stream.matches.rules import ReaderMemory, announce, can_be_forgotten, erase
from stream.producer import Outgoing, Producer

STAGE = "matches"
_log = getLogger(__name__)
Key = tuple[int, bytes]  # partition, user_id

encode_memory = msgspec.msgpack.Encoder().encode
decode_memory = msgspec.msgpack.Decoder(ReaderMemory).decode


class MemoryTable(Protocol):
    """The durable table, by partition (`stream.transport.StateTable`)."""

    def row(self, partition: int, key: bytes) -> bytes | None: ...

    async def write(self, rows: Mapping[int, Mapping[bytes, bytes | None]]) -> None: ...


class MemoryNotStored(KeenstreamError):
    """The table may be ahead of its changelog; a restart restores what the broker has and reads the input again."""


class Announcer:
    """`process` and `forget_old` exclude each other, as both read and write rows."""

    def __init__(
        self,
        settings: Matches,
        table: MemoryTable,
        producer: Producer,
        clock_ms: Callable[[], int],
        codecs: Codecs = JSON_CODECS,
    ) -> None:
        self._settings, self._table, self._producer, self._clock_ms = settings, table, producer, clock_ms
        self._codecs = codecs
        self._rows = asyncio.Lock()

    async def process(self, records: Sequence[SourceRecord]) -> None:
        """Announce what a batch of candidates comes to, and erase readers.

        Raises RetryableError when a part is away; calling again with the same records is right.
        """
        async with self._rows:
            now_ms = self._clock_ms()
            batch = _Batch(self._table)
            for record in records:
                try:
                    self._take(batch, record, now_ms)
                except InvalidRecord as error:
                    batch.letters.append(dead_letter(record, stage=STAGE, reason=str(error), failed_at_ms=now_ms))
            await self._producer.send([*batch.letters, *batch.matches])
            await self._write(batch.rows)
        monitoring.DEAD_LETTERS.labels(STAGE).inc(len(batch.letters))
        for outcome in batch.outcomes:
            monitoring.MATCHES.labels(outcome).inc()

    async def forget_old(self, partition: int, rows: Mapping[bytes, bytes]) -> None:
        """Remove the memory of readers of whom nothing recent is remembered. When it cannot be, the next time does."""
        async with self._rows:
            now_ms = self._clock_ms()
            old = [user for user, row in rows.items() if can_be_forgotten(decode_memory(row), now_ms)]
            if not old:
                return
            try:
                await self._table.write({partition: dict.fromkeys(old)})
            except RetryableError as error:
                _log.warning("matches: forgetting is put off: %s", error)

    def _take(self, batch: "_Batch", record: SourceRecord, now_ms: int) -> None:
        if record.value is None:
            return
        if record.topic == Topic.ERASURES:
            erasure = self._codecs.erasures.decode(record.value)
            key = record.partition, erasure.user_id.encode()
            batch.rows[key] = erase(batch.memory(key), erasure.erased_before, now_ms)
            return
        match = MATCHES.decode(record.value)
        key = record.partition, match.user_id.encode()
        memory, outcome = announce(
            batch.memory(key), match, now_ms=now_ms, per_reader_hour=self._settings.per_reader_hour
        )
        batch.outcomes.append(outcome)
        if outcome == "announced":
            batch.rows[key] = memory
            batch.matches.append(self._outgoing(match))

    def _outgoing(self, match: FreshMatch) -> Outgoing:
        return Outgoing(Topic.FRESH_MATCHES, match.user_id.encode(), self._codecs.matches.encode(match))

    async def _write(self, rows: Mapping[Key, ReaderMemory]) -> None:
        changed: dict[int, dict[bytes, bytes | None]] = {}
        for (partition, user), memory in rows.items():
            changed.setdefault(partition, {})[user] = encode_memory(memory)
        if not changed:
            return
        try:
            await self._table.write(changed)
        except RetryableError as error:
            raise MemoryNotStored(str(error)) from error


class _Batch:
    """What a batch comes to."""

    def __init__(self, table: MemoryTable) -> None:
        self._table = table
        self.rows: dict[Key, ReaderMemory] = {}
        self.matches: list[Outgoing] = []
        self.letters: list[Outgoing] = []
        self.outcomes: list[str] = []

    def memory(self, key: Key) -> ReaderMemory:
        changed = self.rows.get(key)
        if changed is not None:
            return changed
        row = self._table.row(*key)
        return ReaderMemory() if row is None else decode_memory(row)
