"""What was read of one partition since its last range: gathered as columns, due by size and by time."""

from collections.abc import Sequence

import msgspec
import pyarrow as pa

from schemas.config import Archive
from stream.archive.columns import NOTHING, Chunk, Columns, LeftOut, Refused, TopicRecord

CHUNK_RECORDS = 2_000  # fewer make columns cost more, more hold the records' objects longer
MEGABYTE = 1024 * 1024


class Gathered(msgspec.Struct, frozen=True, kw_only=True):
    """A range that can be written: every record read from `first` to `last` is a row, left out, or a hole."""

    first: int
    last: int
    rows: pa.Table
    left_out: LeftOut
    refused: tuple[Refused, ...]  # their letters are to be sent before the range is written


class InHand:
    """Begins at the offset `first`; records come in the order of their offsets."""

    def __init__(self, first: int, columns: Columns) -> None:
        self.first = self.next = first
        self._columns = columns
        self._records: list[TopicRecord] = []
        self._chunks: list[Chunk] = []
        self._bytes = self._taken = self._since_ms = 0

    def __len__(self) -> int:
        """Records, those that will be left out included."""
        return self._taken

    def take(self, records: Sequence[TopicRecord], now_ms: int) -> None:
        """Keep `records`. Raises ValueError when they are not newer than what is in hand: they would be kept twice."""
        if records[0].offset < self.next:
            raise ValueError(f"offset {records[0].offset} was read where {self.next} or later must come")
        if not self._taken:
            self._since_ms = now_ms
        self._records += records
        self._taken += len(records)
        self._bytes += sum(len(record.value or b"") for record in records)
        self.next = records[-1].offset + 1

    def decode(self, now_ms: int, *, everything: bool = False) -> None:
        """Turn records into columns, by whole chunks. Raises RetryableError as the codec does; call it again then."""
        while len(self._records) >= CHUNK_RECORDS or (everything and self._records):
            self._chunks.append(self._columns.build(self._records[:CHUNK_RECORDS], now_ms))
            del self._records[:CHUNK_RECORDS]

    def due(self, settings: Archive, now_ms: int) -> bool:
        return self._taken > 0 and (
            self._taken >= settings.roll_records
            or self._bytes >= settings.roll_megabytes * MEGABYTE
            or now_ms - self._since_ms >= settings.roll_seconds * 1000
        )

    def gathered(self, now_ms: int) -> Gathered:
        """All of it; nothing is forgotten. Raises RetryableError as `decode` does."""
        self.decode(now_ms, everything=True)
        return Gathered(
            first=self.first,
            last=self.next - 1,
            rows=pa.concat_tables([chunk.rows for chunk in self._chunks]),
            left_out=sum((chunk.left_out for chunk in self._chunks), NOTHING),
            refused=tuple(row for chunk in self._chunks for row in chunk.refused),
        )
