"""The columns of a log, whatever they are called in its files, as the contract's names and types.

Of Parquet the columns have types, and a wrong one is the file's fault (UsageError). Of CSV and JSON Lines every value
is text, and one that does not parse is the row's fault: the row goes to the quarantine.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import inspect

from offline.experiments.definition import Analysis, Constant, LogFiles
from schemas.errors import UsageError
from schemas.exposure import Exposure, Outcome

Kind = Literal["exposures", "outcomes"]
ValueType = Literal["text", "integer", "number", "boolean", "time"]
CONTRACTS: Final[dict[Kind, type[msgspec.Struct]]] = {"exposures": Exposure, "outcomes": Outcome}
NAME: Final = pa.dictionary(pa.int32(), pa.string())  # text that repeats itself
ARROW_TYPES: Final[dict[ValueType, Any]] = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "time": pa.int64(),  # UTC milliseconds
}

# Text to each type; NULL where it does not parse. Times without a zone are UTC.
_PARSED: Final[dict[ValueType, str]] = {
    "text": "{}",
    "integer": "CASE WHEN regexp_full_match({0}, '[+-]?[0-9]+') THEN TRY_CAST({0} AS BIGINT) END",
    "number": "TRY_CAST({} AS DOUBLE)",
    "boolean": "TRY_CAST({} AS BOOLEAN)",
    "time": "CASE WHEN regexp_full_match({0}, '[+-]?[0-9]+') THEN TRY_CAST({0} AS BIGINT) "
    "ELSE epoch_ms(TRY_CAST({0} AS TIMESTAMPTZ)) END",
}


COVARIATE: Final = "covariate_"  # and the metric's number: a column of exposures (definition.Metric)

# The API may leave them out for readers of no experiment; a log without the column has nobody to analyse.
_NEEDED: Final = ("experiment", "arm")


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One field of the contract and where a file has it."""

    name: str
    type: ValueType
    source: str  # its name in the files
    required: bool  # neither a default nor a constant stands for it
    nullable: bool
    default: Constant | None = None


class Typed(msgspec.Struct, frozen=True, eq=False):
    """`rows` by the contract's names and types; `unparsed`: for a field, the rows whose text is none of its type."""

    rows: pa.Table
    unparsed: dict[str, Any]  # field -> boolean array [n]


def covariate_columns(analysis: Analysis) -> list[Column]:
    """Of the exposures, one for each metric that has a covariate of its own."""
    return [
        Column(name=f"{COVARIATE}{n}", type="number", source=given, required=True, nullable=True, default=0.0)
        for n, metric in enumerate(analysis.metrics)
        if (given := metric.covariate) is not None
    ]


def log_columns(kind: Kind, log: LogFiles) -> list[Column]:
    """All fields of the contract. UsageError for a mapping of a field that the contract does not have."""
    mapped = log.exposure_columns if kind == "exposures" else log.outcome_columns
    constants = log.exposure_constants if kind == "exposures" else log.outcome_constants
    fields = inspect.type_info(CONTRACTS[kind]).fields  # type: ignore[attr-defined]  # a struct's has them
    names = [field.name for field in fields]
    table = kind.removesuffix("s")
    for where, given in ((f"{table}_columns", mapped), (f"{table}_constants", constants)):
        if unknown := sorted(set(given) - set(names)):
            raise UsageError(f"log.{where}: {kind} have no field {unknown[0]}; there are {', '.join(names)}")
    return [_column(field, mapped, constants) for field in fields]


def check_columns(there: pa.Schema | Sequence[str], columns: Sequence[Column], where: str) -> None:
    """UsageError names the first column that a file lacks or, in a schema, has with another type."""
    names = there if not isinstance(there, pa.Schema) else there.names
    for column in columns:
        if column.source in names:
            if isinstance(there, pa.Schema):
                _check_type(there.field(column.source).type, column, where)
        elif column.required:
            raise UsageError(
                f"{where}: there is no column {column.source} (of the field {column.name}); map it in the table [log] "
                f"of the analysis, or give a constant; the file has {', '.join(names)}"
            )


def typed_rows(table: pa.Table, columns: Sequence[Column]) -> Typed:
    """A Parquet table, already checked by `check_columns`."""
    found = [_arrow_column(table, column) for column in columns]
    return Typed(pa.table(found, names=[column.name for column in columns]), {})


def by_value(column: Any, test: Callable[[Any], Any]) -> Any:
    """`test` of each text of a column; of a dictionary each value is tested once, and null stays null."""
    if not pa.types.is_dictionary(column.type):
        return test(column)
    return pa.chunked_array([test(chunk.dictionary).take(chunk.indices) for chunk in column.chunks], pa.bool_())


def parsed_rows(table: pa.Table, columns: Sequence[Column], session: duckdb.DuckDBPyConnection) -> Typed:
    """A table of text columns by the names of the file; empty text is null. `session` has TimeZone = UTC."""
    cleaned = table.rename_columns([f"c{n}" for n in range(table.num_columns)])
    at = {name: f"nullif(c{n}, '')" for n, name in enumerate(table.column_names)}
    wanted = [column for column in columns if column.source in at]
    values = [f"{_PARSED[c.type].format(at[c.source])} AS {c.name}" for c in wanted]
    broken = [f"{at[c.source]} IS NOT NULL AND {_PARSED[c.type].format(at[c.source])} IS NULL" for c in wanted]
    session.register("text_rows", cleaned)
    found = session.sql(
        f"SELECT {', '.join([*values, *(f'({row}) AS broken_{n}' for n, row in enumerate(broken))])} FROM text_rows"
    ).to_arrow_table()
    session.unregister("text_rows")
    by_name = {column.name: found[column.name] for column in wanted}
    rows = [_with_default(by_name.get(column.name), column, table.num_rows) for column in columns]
    unparsed = {column.name: found[f"broken_{n}"] for n, column in enumerate(wanted) if column.type != "text"}
    return Typed(pa.table(rows, names=[column.name for column in columns]), unparsed)


def _column(field: inspect.Field, mapped: Mapping[str, str], constants: Mapping[str, Constant]) -> Column:
    kinds = field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,)
    kind = next(each for each in kinds if not isinstance(each, inspect.NoneType))
    default = None if field.default is msgspec.NODEFAULT else field.default
    return Column(
        name=field.name,
        type="time" if field.name.endswith("_at") else _value_type(kind),
        source=mapped.get(field.name, field.name),
        required=(field.required or field.name in _NEEDED) and field.name not in constants,
        nullable=len(kinds) > 1,
        default=constants.get(field.name, default),
    )


def _value_type(kind: inspect.Type) -> ValueType:
    match kind:
        case inspect.IntType():
            return "integer"
        case inspect.FloatType():
            return "number"
        case inspect.BoolType():
            return "boolean"
    return "text"


def _check_type(found: pa.DataType, column: Column, where: str) -> None:
    if pa.types.is_dictionary(found):
        found = found.value_type
    allowed = {
        "text": pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found),
        "integer": pa.types.is_integer(found),
        "number": pa.types.is_floating(found) or pa.types.is_integer(found) or pa.types.is_decimal(found),
        "boolean": pa.types.is_boolean(found),
        "time": pa.types.is_timestamp(found) or pa.types.is_int64(found),
    }
    if not (allowed[column.type] or pa.types.is_null(found)):
        raise UsageError(f"{where}: column {column.source} (of the field {column.name}) is {found}, not {column.type}")


def _arrow_column(table: pa.Table, column: Column) -> Any:
    if column.source not in table.column_names:
        return _with_default(None, column, table.num_rows)
    found = table[column.source]
    if pa.types.is_dictionary(found.type):
        found = found.cast(NAME if column.type == "text" else found.type.value_type)
        return _with_default(found, column, table.num_rows)
    if pa.types.is_timestamp(found.type):
        found = found.cast(pa.timestamp("ms", tz=found.type.tz), safe=False)
    return _with_default(found.cast(ARROW_TYPES[column.type]), column, table.num_rows)


def _with_default(found: Any, column: Column, rows: int) -> Any:
    """A null where the contract knows a default is that default."""
    kind = ARROW_TYPES[column.type]
    if found is None and column.type == "text":
        return pa.array([column.default], NAME).take(pa.array(np.zeros(rows, dtype=np.int32)))
    if found is None:
        return pa.repeat(pa.scalar(column.default, kind), rows)
    if column.default is not None and found.null_count:
        return pc.fill_null(found, pa.scalar(column.default, kind))
    return found
