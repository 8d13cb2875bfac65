"""Twins that several stream tests pass in."""

from collections.abc import Mapping

import msgspec

from schemas.errors import PartitionsMoved, Unavailable


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A consumed record."""

    topic: str = "user-events"
    partition: int = 0
    offset: int = 0
    key: bytes | None = None
    value: bytes | None = None
    timestamp_ms: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


class MemoryTable:
    """The profile table in memory; `failures` makes the next writes raise, `moved` as if partitions were another's."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.writes = 0
        self.failures = self.moved = 0

    def row(self, partition: int, key: bytes) -> bytes | None:
        return self.rows.get(key)

    async def write(self, rows: Mapping[int, Mapping[bytes, bytes]]) -> None:
        if self.failures:
            self.failures -= 1
            raise Unavailable("Kafka does not answer")
        if self.moved:
            self.moved -= 1
            raise PartitionsMoved("partitions [0] belong to another worker now")
        for changed in rows.values():
            self.writes += len(changed)
            self.rows.update(changed)
