"""CSV and Parquet files of articles, in batches of constant size."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import UsageError
from stream.feeds.columns import Columns, choose_columns
from stream.feeds.line_files import open_bytes, read_lines
from stream.feeds.rows import START, BadLine, Outcome, Position, Step, Taken
from stream.feeds.rules import Rules, try_article

DELIMITERS = ",;\t|"
PARQUET_BATCH_ROWS = 2_048
MAX_CELL_CHARACTERS = 1_000_000


def csv_columns(path: Path, mapping: Mapping[str, str], *, undated: bool) -> Columns:
    """Raises UsageError naming the file and the column that it lacks."""
    names = next(csv.reader([_header(path)], delimiter=_delimiter(path)), [])
    return choose_columns(names, mapping, source=str(path), undated=undated)


def read_csv(path: Path, columns: Columns, rules: Rules, start: Position = START) -> Iterator[Step]:
    """Articles of a CSV file with a header; a quoted cell may hold line breaks. Row numbers count the header.

    Bytes that are not UTF-8 are read as Windows-1252, and the row says so. Raises UsageError when the file cannot be
    read to its end.
    """
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    delimiter = _delimiter(path)
    names = next(csv.reader([_header(path)], delimiter=delimiter), [])
    lines = _Lines(path)
    rows = csv.reader(lines, delimiter=delimiter)
    number = 0
    while True:
        number += 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            outcome: Outcome = BadLine(number, str(error))
        else:
            if row is None:
                return
            if number == 1 or number <= start.rows or not row:
                continue
            outcome = _csv_outcome(row, names, columns, rules, number)
        yield Step((outcome,), Position(number if lines.ended else number - 1, lines.bytes))


def _csv_outcome(row: list[str], names: list[str], columns: Columns, rules: Rules, number: int) -> Outcome:
    if len(row) != len(names):
        return BadLine(number, f"{len(row)} cells, the header has {len(names)}")
    mended = [_mended(cell) for cell in row]
    outcome = try_article(columns.fields(dict(zip(names, mended, strict=True)).__getitem__), rules, number)
    if isinstance(outcome, Taken) and mended != row:
        return Taken(outcome.record, redated=outcome.redated, mended=True)
    return outcome


class _Lines:
    """Decoded lines, and how far they go."""

    def __init__(self, path: Path) -> None:
        self._lines = read_lines(path)
        self.bytes, self.ended = 0, True

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.bytes, self.ended = line.after.bytes, line.ended
            yield line.data.decode("utf-8", "surrogateescape").removeprefix("\ufeff").replace("\0", "")


def _mended(cell: str) -> str:
    return cell if cell.isascii() or _is_sound(cell) else _as_bytes(cell).decode("cp1252", "replace")


def _is_sound(cell: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in cell)


def _as_bytes(cell: str) -> bytes:
    return cell.encode("utf-8", "surrogateescape")


def _header(path: Path) -> str:
    with open_bytes(path) as file:
        line = file.readline(MAX_CELL_CHARACTERS)
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UsageError(f"{path} is UTF-16: save it as UTF-8")
    return _mended(line.decode("utf-8", "surrogateescape").removeprefix("\ufeff").rstrip("\r\n"))


def _delimiter(path: Path) -> str:
    header = _header(path)
    return max(DELIMITERS, key=header.count)


def parquet_columns(path: Path, mapping: Mapping[str, str], *, undated: bool) -> Columns:
    """Raises UsageError naming the file and the column that it lacks, or one whose type cannot be used."""
    with _open_parquet(path) as file:
        columns = choose_columns(file.schema_arrow.names, mapping, source=str(path), undated=undated)
        for field, name in columns.chosen:
            kind = file.schema_arrow.field(name).type
            if pa.types.is_nested(kind) or pa.types.is_binary(kind):
                raise UsageError(f"{path}: column {name} is of type {kind}, which cannot be a {field}")
        return columns


def read_parquet(path: Path, columns: Columns, rules: Rules, start: Position = START) -> Iterator[Step]:
    """Articles of a Parquet file, a batch of rows in memory at a time. Raises UsageError when it is broken."""
    with _open_parquet(path) as file:
        groups, first = _groups_from(file, start.rows)
        try:
            batches = file.iter_batches(PARQUET_BATCH_ROWS, row_groups=groups, columns=columns.names)
            for batch in batches:
                cells = {name: batch.column(name) for name in columns.names}
                for at in range(max(0, start.rows - first), batch.num_rows):
                    outcome = _parquet_outcome(cells, at, columns, rules, first + at + 1)
                    yield Step((outcome,), Position(rows=first + at + 1))
                first += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise UsageError(f"{path} is not a whole Parquet file: {error}") from error


def parquet_rows(path: Path) -> int:
    with _open_parquet(path) as file:
        return int(file.metadata.num_rows)


def _parquet_outcome(cells: Mapping[str, Any], at: int, columns: Columns, rules: Rules, number: int) -> Outcome:
    try:
        fields = columns.fields(lambda name: cells[name][at].as_py())
    except (ValueError, OverflowError) as error:  # a timestamp beyond the year 9999, bytes that are not UTF-8
        return BadLine(number, str(error))
    return try_article(fields, rules, number)


def _groups_from(file: Any, row: int) -> tuple[list[int], int]:
    """The row groups from the one that holds `row` on, and the number of the first row in them."""
    first = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if first + rows > row:
            return list(range(group, file.num_row_groups)), first
        first += rows
    return [], first


def _open_parquet(path: Path) -> Any:
    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except pa.ArrowException as error:
        raise UsageError(f"{path} is not a Parquet file: {error}") from error
