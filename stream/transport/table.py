"""Durable state of a worker: rows of bytes in memory, by partition, restored from a compacted changelog.

Rows are written outside Faust's `table[key] = value`: that needs a current event, sends every row by itself (about
50 µs) and does not say when the broker has it. `write` appends the rows of a flush to few large batches and returns
when the broker has acknowledged all of them.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import faust
from aiokafka.errors import KafkaError
from faust.stores.base import Store
from faust.types.tuples import TP

from schemas.errors import PartitionsMoved, Unavailable, UsageError

Rows = Mapping[bytes, bytes | None]  # None deletes the row


class StateStore(Store):  # type: ignore[misc]  # faust is untyped here
    """Rows in memory, one dictionary for each partition, with the offset of the last row applied."""

    def __post_init__(self) -> None:
        self.partitions: dict[int, dict[bytes, bytes]] = {}
        self._applied: dict[int, int] = {}

    def apply(self, partition: int, rows: Rows) -> None:
        held = self.partitions.setdefault(partition, {})
        for key, value in rows.items():
            if value is None:
                held.pop(key, None)
            else:
                held[key] = value

    def persisted_offset(self, tp: TP) -> int | None:
        """The last row applied in this process: after a rebalance only newer rows are read again."""
        return self._applied.get(tp.partition)

    def set_persisted_offset(self, tp: TP, offset: int) -> None:
        self._applied[tp.partition] = max(offset, self._applied.get(tp.partition, -1))

    def restore(self, tp: TP, records: Iterable[Any]) -> None:
        """Apply changelog records in order; those that are applied already change nothing."""
        held = self.partitions.setdefault(tp.partition, {})
        applied = self._applied.get(tp.partition, -1)
        for record in records:
            if record.offset <= applied:
                continue
            applied = record.offset
            if record.value is None:
                held.pop(record.key, None)
            else:
                held[record.key] = record.value
        self._applied[tp.partition] = applied

    def apply_changelog_batch(self, batch: Iterable[Any], to_key: Any, to_value: Any) -> None:
        for event in batch:
            self.restore(event.message.tp, [event.message])

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Forget partitions that another worker has now: their rows grow old here."""
        changelog = self.table.changelog_topic_name
        kept = {tp.partition for tp in assigned if tp.topic == changelog}
        for partition in self.partitions.keys() | self._applied.keys():
            if partition not in kept:
                self.partitions.pop(partition, None)
                self._applied.pop(partition, None)

    def reset_state(self) -> None:
        """Nothing is kept on disk."""

    async def backup_partition(self, tp: TP | int, flush: bool = True, purge: bool = False, keep: int = 1) -> None:
        """The changelog is the backup."""

    def restore_backup(self, tp: TP | int, latest: bool = True, backup_id: int = 0) -> None:
        """The changelog is the backup."""

    def __getitem__(self, key: bytes) -> bytes:
        for held in self.partitions.values():
            if key in held:
                return held[key]
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return any(key in held for held in self.partitions.values())

    def __iter__(self) -> Iterator[bytes]:
        for held in self.partitions.values():
            yield from held

    def __len__(self) -> int:
        return sum(map(len, self.partitions.values()))


class StateTable(faust.Table):  # type: ignore[misc]  # faust is untyped here
    """A table of bytes whose rows are read by partition and written a flush at a time."""

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **{**options, "key_type": bytes, "value_type": bytes})

    def _new_store(self) -> StateStore:
        return StateStore("memory://", self.app, self, table_name=self.name, loop=self.loop)

    def row(self, partition: int, key: bytes) -> bytes | None:
        """The row of a key that lives in this partition."""
        held = self.data.partitions.get(partition)
        return None if held is None else held.get(key)

    def rows(self, partition: int) -> Mapping[bytes, bytes]:
        """All rows of a partition."""
        found: dict[bytes, bytes] = self.data.partitions.get(partition, {})
        return found

    def restore(self, tp: TP, records: Iterable[Any]) -> None:
        self.data.restore(tp, records)

    async def write(self, rows: Mapping[int, Rows]) -> None:
        """Apply the rows of each partition and return when the broker has acknowledged all of them.

        On an error the rows stay applied here, so the caller must not go on: let it end the worker, which restores
        what the broker has.
        """
        changed = {partition: changes for partition, changes in rows.items() if changes}
        self._require_held(changed)
        await asyncio.gather(*(self._write(partition, changes) for partition, changes in changed.items()))

    async def _write(self, partition: int, changes: Rows) -> None:
        self.data.apply(partition, changes)
        topic = self.changelog_topic_name
        producer = await self._producer()
        built = list(_filled(producer, changes))
        try:
            sent = [await producer.send_batch(batch, topic, partition=partition) for batch in built]
            stored = await asyncio.gather(*sent)
        except (KafkaError, OSError) as error:
            raise Unavailable(f"Kafka did not store the rows of {topic}/{partition} ({error!r}): is it up?") from error
        self.data.set_persisted_offset(TP(topic, partition), stored[-1].offset + built[-1].record_count() - 1)

    async def _producer(self) -> Any:
        return (await self.app.maybe_start_producer())._ensure_producer()

    def _require_held(self, partitions: Iterable[int]) -> None:
        topic = self.changelog_topic_name
        held = {tp.partition for tp in self.app.consumer.assignment() if tp.topic == topic}
        if lost := set(partitions) - held:
            raise PartitionsMoved(f"{topic}: partitions {sorted(lost)} belong to another worker now")

    def partition_for_key(self, key: Any) -> int:
        raise UsageError("write rows with `await table.write({partition: {key: value}})`")


def _filled(producer: Any, rows: Rows) -> Iterator[Any]:
    """The rows in as few batches as their size allows."""
    batch = producer.create_batch()
    for key, value in rows.items():
        if batch.append(key=key, value=value, timestamp=None) is None:
            yield batch
            batch = producer.create_batch()
            batch.append(key=key, value=value, timestamp=None)
    yield batch
