"""The files of a log, cut into few and large parts that workers can read by themselves.

A part is a list of slices: row groups of Parquet files, ranges of lines of JSON Lines, or whole CSV files (a quoted
field may hold a line break, so only a reader from the start knows where a row ends). Many small files, as an archive
writes them, share a part; a huge one has several.
"""

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from offline.experiments.log_columns import Column, Kind, check_columns
from schemas.errors import UsageError

Format = Literal["parquet", "jsonl", "csv"]
FORMATS: Final[dict[str, Format]] = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
BATCH_ROWS: Final = 250_000  # read at once
TEXT_RANGE: Final = 64_000_000  # bytes of a slice of JSON Lines
ROW_BYTES: Final = 200  # of a row as text, to guess how many there are
LINE: Final = "line"
_DICTIONARY_BYTES: Final = 1 << 20  # that writers allow, before they go on in plain text
IS_JSON: Final = "line_is_json"


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    format: Format
    row_group: int = 0  # of Parquet; of JSON Lines the number of the range
    first_byte: int = 0  # of JSON Lines: lines that begin in [first_byte, last_byte)
    last_byte: int = 0
    rows: int = 0  # exact for Parquet, guessed for text


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker reads in one go."""

    number: int
    kind: Kind
    slices: tuple[Slice, ...]

    @property
    def rows(self) -> int:
        return sum(one.rows for one in self.slices)


class Batch(msgspec.Struct, frozen=True, eq=False):
    """Some rows of a slice with the columns as the file has them: all of them text unless it is Parquet."""

    rows: pa.Table
    slice: Slice
    first_row: int


def find_files(folder: Path, place: str) -> list[Path]:
    """The log files at `place` below `folder`: a folder, a file, or a glob; hidden and `_` names are not the log's."""
    at = folder / place
    found = [at] if at.is_file() else sorted(at.rglob("*") if at.is_dir() else folder.glob(place))
    return [path for path in found if path.suffix in FORMATS and path.is_file() and not _hidden(path, folder)]


def cut_files(paths: Sequence[Path], columns: Sequence[Column]) -> list[Slice]:
    """Every file, its columns checked. UsageError names the file that cannot be read, and the column."""
    return [one for path in paths for one in _cut(path, FORMATS[path.suffix], columns)]


def make_parts(kind: Kind, slices: Sequence[Slice], *, part_rows: int, first: int = 0) -> list[Part]:
    """Slices in their order, up to `part_rows` in each part; parts are numbered from `first`."""
    groups: list[list[Slice]] = []
    size = part_rows
    for one in slices:
        if size >= part_rows:
            groups.append([])
            size = 0
        groups[-1].append(one)
        size += max(1, one.rows)
    return [Part(number=first + n, kind=kind, slices=tuple(group)) for n, group in enumerate(groups)]


def read_slice(one: Slice, columns: Sequence[Column]) -> Iterator[Batch]:
    """Its rows, at most BATCH_ROWS at once; only the wanted columns. UsageError when the file is broken."""
    wanted = {column.source for column in columns}
    try:
        first = 0
        for rows in _READERS[one.format](one, wanted):
            yield Batch(rows, one, first)
            first += rows.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(f"{one.path}, row group {one.row_group}: cannot be read: {error}") from error


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(("_", ".")) for part in path.relative_to(folder).parts)


def _cut(path: Path, form: Format, columns: Sequence[Column]) -> list[Slice]:
    try:
        if form == "parquet":
            return _cut_parquet(path, columns)
        return _cut_jsonl(path) if form == "jsonl" else _cut_csv(path, columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(f"{path} is not {form}, or is damaged: {error}") from error


def _cut_parquet(path: Path, columns: Sequence[Column]) -> list[Slice]:
    with pq.ParquetFile(path) as file:
        check_columns(file.schema_arrow, columns, str(path))
        groups = range(file.metadata.num_row_groups)
        sizes = [file.metadata.row_group(number).num_rows for number in groups]
    return [Slice(path=str(path), format="parquet", row_group=n, rows=size) for n, size in enumerate(sizes)]


def _cut_jsonl(path: Path) -> list[Slice]:
    """Fields are looked for in each line: a line that lacks one is a bad row."""
    size = path.stat().st_size
    starts = range(0, size, TEXT_RANGE)
    return [
        Slice(
            path=str(path),
            format="jsonl",
            row_group=number,
            first_byte=start,
            last_byte=min(size, start + TEXT_RANGE),
            rows=(min(size, start + TEXT_RANGE) - start) // ROW_BYTES,
        )
        for number, start in enumerate(starts)
    ]


def _cut_csv(path: Path, columns: Sequence[Column]) -> list[Slice]:
    with csv.open_csv(path) as reader:
        check_columns(reader.schema.names, columns, str(path))
    return [Slice(path=str(path), format="csv", rows=path.stat().st_size // ROW_BYTES)]


def _read_parquet(one: Slice, wanted: set[str]) -> Iterator[pa.Table]:
    metadata = _metadata(one.path, os.stat(one.path).st_mtime_ns)
    names = _dictionaries(metadata.row_group(one.row_group))
    with pq.ParquetFile(one.path, metadata=metadata, read_dictionary=names) as file:
        names = [name for name in file.schema_arrow.names if name in wanted]
        for batch in file.iter_batches(BATCH_ROWS, row_groups=[one.row_group], columns=names):
            yield pa.Table.from_batches([batch])


@functools.lru_cache(maxsize=1)
def _metadata(path: str, changed_ns: int) -> Any:
    """Of the file whose row groups are read one after another."""
    return pq.read_metadata(path)


def _dictionaries(group: Any) -> list[str]:
    """The columns that are dictionaries to their end, by their size: they are read as such, which is ten times faster.

    A value takes at most 4 bytes beside its dictionary; in plain text it takes 4 and its letters.
    """
    columns = [group.column(number) for number in range(group.num_columns)]
    found = [c for c in columns if c.has_dictionary_page and c.physical_type == "BYTE_ARRAY"]
    return [c.path_in_schema for c in found if c.total_uncompressed_size <= _DICTIONARY_BYTES + 4 * c.num_values]


def _read_csv(one: Slice, wanted: set[str]) -> Iterator[pa.Table]:
    with csv.open_csv(one.path) as reader:
        names = [name for name in reader.schema.names if name in wanted]
    convert = csv.ConvertOptions(
        include_columns=names, column_types={name: pa.string() for name in names}, strings_can_be_null=False
    )
    read = csv.ReadOptions(block_size=16_000_000)
    with csv.open_csv(one.path, read_options=read, convert_options=convert) as reader:
        for batch in reader:
            yield pa.Table.from_batches([batch])


def _read_jsonl(one: Slice, wanted: set[str]) -> Iterator[pa.Table]:
    """Lines as one column; `json_fields` takes the fields out."""
    for lines in _lines(one):
        yield pa.table({LINE: pa.array(lines, pa.string())})


def _lines(one: Slice) -> Iterator[list[str]]:
    with open(one.path, "rb") as file:
        file.seek(max(0, one.first_byte - 1))
        if one.first_byte:
            file.readline()  # it began in the range before, or ends exactly here
        found: list[str] = []
        while file.tell() < one.last_byte and (line := file.readline()):
            if line.strip():
                found.append(line.decode("utf-8", errors="replace"))
            if len(found) == BATCH_ROWS:
                yield found
                found = []
        if found:
            yield found


_READERS: Final[dict[Format, Any]] = {"parquet": _read_parquet, "csv": _read_csv, "jsonl": _read_jsonl}


def json_fields(rows: pa.Table, columns: Sequence[Column], session: Any) -> pa.Table:
    """The wanted fields of JSON lines as text, null where a line has none or is no JSON, which IS_JSON says."""
    session.register("json_lines", rows)
    names = sorted({column.source for column in columns})
    quoted = ", ".join(f"CASE WHEN json_valid(line) THEN line ->> {_path(name)} END AS {_name(name)}" for name in names)
    found = session.sql(f"SELECT {quoted}, json_valid(line) AS {IS_JSON} FROM json_lines").to_arrow_table()
    session.unregister("json_lines")
    return found


def _path(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("'", "''")
    return f"'$.\"{escaped}\"'"


def _name(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
