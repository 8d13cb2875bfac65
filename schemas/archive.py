"""The archive as files: folders, names and Arrow schemas, for the worker that writes them and the jobs that read.

    <folder>/<topic>/date=YYYY-MM-DD/<partition>-<first>-<last>.parquet

The date is the UTC day of the record's own time, not of its arrival; `first` and `last` are the offsets of the range of
the Kafka partition that the file belongs to, which other days' files may share. Records whose time cannot be (before
2000, or ahead of the clock) are kept apart in `implausible-date/`. Names that begin with `_` belong to the worker.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import inspect

from schemas.article import Article
from schemas.errors import UsageError
from schemas.event import Event
from schemas.exposure import Exposure, Outcome
from schemas.names import Topic
from schemas.queries import QueryList

IMPLAUSIBLE: Final = "implausible-date"
TIME = pa.timestamp("ms", tz="UTC")
READER: Final = "user_id"

# where a row comes from: the broker's partition, offset and time
PARTITION: Final = "kafka_partition"
OFFSET: Final = "kafka_offset"
ARRIVED: Final = "kafka_timestamp"
BROKER_COLUMNS = (pa.field(PARTITION, pa.int32()), pa.field(OFFSET, pa.int64()), pa.field(ARRIVED, TIME))

_FILE = re.compile(r"(\d+)-(\d+)-(\d+)\.parquet")
_DAY = re.compile(r"date=(\d{4}-\d{2}-\d{2})")


class ArchivedTopic(msgspec.Struct, frozen=True):
    """One topic's contract, and the field that says when a record happened."""

    record_type: type[msgspec.Struct]
    time_field: str

    @property
    def of_readers(self) -> bool:
        return READER in self.record_type.__struct_fields__


ARCHIVED: Mapping[str, ArchivedTopic] = {
    Topic.USER_EVENTS: ArchivedTopic(Event, "occurred_at"),
    Topic.QUERY_LISTS: ArchivedTopic(QueryList, "generated_at"),
    Topic.ARTICLES: ArchivedTopic(Article, "published_at"),
    Topic.EXPOSURES: ArchivedTopic(Exposure, "exposed_at"),
    Topic.OUTCOMES: ArchivedTopic(Outcome, "occurred_at"),
}


class ArchiveFile(msgspec.Struct, frozen=True, order=True):
    """A file by its name; `day` is None for implausible dates, which come last in order."""

    day: date | None
    partition: int
    first: int
    last: int

    @property
    def name(self) -> str:
        """Below the folder of the topic."""
        return f"{day_folder(self.day)}/{self.partition}-{self.first}-{self.last}.parquet"


def day_folder(day: date | None) -> str:
    return f"date={day.isoformat()}" if day else IMPLAUSIBLE


def parse_file(path: Path) -> ArchiveFile | None:
    """The inverse of `name`; None when `path` is no file of the archive."""
    file, day = _FILE.fullmatch(path.name), _DAY.fullmatch(path.parent.name)
    if file is None or not (day or path.parent.name == IMPLAUSIBLE):
        return None
    partition, first, last = map(int, file.groups())
    return ArchiveFile(date.fromisoformat(day[1]) if day else None, partition, first, last)


def archive_files(folder: Path, topic: str, first: date | None = None, last: date | None = None) -> list[Path]:
    """The files of `topic`, of all days or of those from `first` to `last` (inclusive), by day, partition and offset.

    Implausible dates are among them only when no day is asked for.
    """
    found = [(file, path) for path in (folder / topic).glob("*/*.parquet") if (file := parse_file(path))]
    if first or last:
        found = [row for row in found if row[0].day and (first or date.min) <= row[0].day <= (last or date.max)]
    return [path for _, path in sorted(found, key=lambda row: (row[0].day or date.max, row[0].partition, row[0].first))]


def archive_schema(topic: str) -> pa.Schema:
    """The columns of a topic's files: the fields of its contract, then the broker's columns."""
    fields = inspect.type_info(ARCHIVED[topic].record_type).fields  # type: ignore[attr-defined]  # a struct's has them
    return pa.schema([*(_column(field) for field in fields), *BROKER_COLUMNS])


def read_archive_file(path: Path, topic: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a file with the types of `archive_schema`, all columns or those named.

    A field that was added to the contract later has its default. Raises UsageError, naming file and column, when a
    column that has no default is missing or of another type, and when the file is not Parquet.
    """
    schema = archive_schema(topic)
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    try:
        with pq.ParquetFile(path) as file:
            there = set(file.schema_arrow.names)
            table = file.read([name for name in wanted.names if name in there])
            rows = file.metadata.num_rows
    except pa.ArrowInvalid as error:
        raise UsageError(f"{path} is not a file of the archive: {error}") from error
    defaults = _defaults(topic)
    return pa.table([_typed(table, field, defaults, rows, path) for field in wanted], schema=wanted)


def records(table: pa.Table, topic: str) -> Iterator[Any]:
    """The rows as objects of the topic's contract. The table needs all columns of the contract."""
    record_type = ARCHIVED[topic].record_type
    names = record_type.__struct_fields__
    for row in zip(*(_values(table.column(name)) for name in names), strict=True):
        yield record_type(**dict(zip(names, row, strict=True)))


def _column(field: inspect.Field) -> pa.Field:
    kind = field.type
    if isinstance(kind, inspect.UnionType):
        (kind,) = (each for each in kind.types if not isinstance(each, inspect.NoneType))
    return pa.field(field.name, TIME if field.name.endswith("_at") else _arrow_type(kind))


def _arrow_type(kind: inspect.Type) -> pa.DataType:
    match kind:
        case inspect.StrType() | inspect.LiteralType():
            return pa.string()
        case inspect.IntType():
            return pa.int64()
        case inspect.FloatType():
            return pa.float64()
        case inspect.BoolType():
            return pa.bool_()
        case inspect.VarTupleType(item_type=item):
            return pa.list_(_arrow_type(item))
    raise TypeError(f"the archive has no column type for {kind}")  # a new kind of field in a contract


def _defaults(topic: str) -> dict[str, Any]:
    fields = msgspec.structs.fields(ARCHIVED[topic].record_type)
    return {field.name: field.default for field in fields if field.default is not msgspec.NODEFAULT}


def _typed(table: pa.Table, field: pa.Field, defaults: Mapping[str, Any], rows: int, path: Path) -> Any:
    if field.name not in table.column_names:
        if field.name not in defaults:
            raise UsageError(f"{path} has no column {field.name}: it was not written by this archive, or is damaged")
        return pa.array([defaults[field.name]] * rows, field.type)
    try:
        return table.column(field.name).cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        found = table.schema.field(field.name).type
        raise UsageError(f"{path}: column {field.name} is {found} where {field.type} is wanted") from error


def _values(column: Any) -> list[Any]:
    if column.type == TIME:
        return list(column.cast(pa.int64()).to_pylist())
    rows = column.to_pylist()
    return [tuple(row) for row in rows] if pa.types.is_list(column.type) else list(rows)
