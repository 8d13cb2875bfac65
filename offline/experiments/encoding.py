"""Rows of a log as the shuffle and the fold take them: ids as numbers, names as dictionaries, and no other columns.

The fold asks of the id of an exposure, a request or an article only whether it equals another of the same reader. 64
bits of a hash answer that: among ten thousand rows of one reader two ids share them once in 10^11 readers. Readers
keep their ids.
"""

from collections.abc import Sequence
from typing import Any, Final

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from offline.experiments.definition import Analysis
from offline.experiments.log_columns import ARROW_TYPES, COVARIATE, NAME, Column, Kind, by_value
from offline.experiments.places import NONE, list_ages
from offline.experiments.quarantine import TARGET

Codes = NDArray[np.int64]
ID: Final = pa.uint64()

_HOUR_MS: Final = 3_600_000

# `inside` the experiment or not; `place`: a JSON list of what brought the article, by DIMENSIONS[1:] of places.py.
_EXPOSURES: Final = {
    "user_id": NAME,
    "exposure_id": ID,
    "request_id": ID,
    "article_id": ID,
    "exposed_at": pa.int64(),
    "inside": pa.bool_(),
    "arm": NAME,
    "phase": pa.int64(),
    "triggered": pa.bool_(),
    "exclusive": pa.bool_(),
    "reader_signals": pa.int64(),
    "place": NAME,
}
_POLICIES: Final = ("position", "propensity")  # what off-policy estimates need besides
_BROUGHT: Final = ("source", "query_slot", "list_age_ms", "model", "model_version", "prompt_version")
CODES: Final = {"outcome": "outcome_id", "request": "request_id", "article": "article_id"}


def coded_schema(kind: Kind, columns: tuple[Column, ...], *, policies: bool) -> pa.Schema:
    """Of what `coded_rows` gives for rows with these columns; `user_id` is the first."""
    types = {column.name: ARROW_TYPES[column.type] for column in columns}
    if kind == "outcomes":
        return pa.schema({"user_id": NAME, **(types | {"user_id": NAME, "kind": NAME}), **dict.fromkeys(CODES, ID)})
    kept = [name for name in types if name.startswith(COVARIATE)]
    kept += [name for name in types if policies and (name in _POLICIES or name.startswith(TARGET))]
    return pa.schema({**_EXPOSURES, **{name: types[name] for name in kept}})


def coded_rows(rows: pa.Table, schema: pa.Schema, analysis: Analysis, session: duckdb.DuckDBPyConnection) -> pa.Table:
    """`rows` by the contract's names, text plain or as dictionaries; `schema` from `coded_schema`."""
    exposed = "inside" in schema.names
    found = _coded_exposures(rows, analysis, session) if exposed else _coded_outcomes(rows, session)
    return pa.table(
        [_as(found.get(f.name, rows[f.name] if f.name in rows.column_names else None), f.type) for f in schema],
        schema=schema,
    )


def hashed(texts: pa.ChunkedArray, session: duckdb.DuckDBPyConnection) -> pa.ChunkedArray:
    """64 bits of each text, null for null; of a dictionary each value is hashed once."""
    if pa.types.is_dictionary(texts.type):
        values = [chunk.dictionary for chunk in texts.chunks]
        codes = one_array(hashed(pa.chunked_array(values, pa.string()), session))
        starts = np.cumsum([0, *map(len, values)])
        chunks = zip(texts.chunks, starts, values, strict=False)
        return pa.chunked_array([codes.slice(at, len(own)).take(chunk.indices) for chunk, at, own in chunks], ID)
    session.register("texts", pa.table({"text": texts}))
    found = session.sql("SELECT CASE WHEN text IS NOT NULL THEN hash(text) END AS code FROM texts").to_arrow_table()
    session.unregister("texts")
    return found["code"]


def _coded_exposures(rows: pa.Table, analysis: Analysis, session: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    return {
        **{name: hashed(rows[name], session) for name in ("exposure_id", "request_id", "article_id")},
        "inside": by_value(rows["experiment"], lambda names: pc.equal(names, analysis.experiment.name)),
        "place": _places(rows, analysis.list_age_hours),
    }


def _coded_outcomes(rows: pa.Table, session: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """With their ids as they are too, for some go to the quarantine."""
    return {code: hashed(rows[name], session) for code, name in CODES.items()}


def _places(rows: pa.Table, bounds: Sequence[float]) -> Any:
    """What brought each article, as a dictionary of JSON lists."""
    codes, values = _numbered(rows["source"])
    tuples: list[tuple[Any, ...]] = [(value,) for value in values]
    for name in _BROUGHT[1:]:
        more = _ages(rows[name], bounds) if name == "list_age_ms" else _numbered(rows[name])
        codes, tuples = _paired(codes, tuples, *more)
    labels = pa.array([msgspec.json.encode(_label(*found)).decode() for found in tuples], pa.string())
    again = labels.dictionary_encode()  # two tuples may have the same label
    return pa.DictionaryArray.from_arrays(again.indices.take(pa.array(codes)), again.dictionary)


def _label(source: Any, slot: Any, age: str, model: str, version: str, prompt: str) -> list[str]:
    named = f"{model} {version}".strip() if model else NONE
    return [source, NONE if slot is None else str(slot), age, named, prompt or NONE]


def _numbered(column: pa.ChunkedArray) -> tuple[Codes, list[Any]]:
    """The number of each row's value, and the values; null is one of them."""
    if column.null_count == len(column):
        return np.zeros(len(column), dtype=np.int64), [None]
    found = one_array(column if pa.types.is_dictionary(column.type) else column.dictionary_encode())
    values = found.dictionary.to_pylist()
    codes = pc.fill_null(found.indices, len(values)).to_numpy().astype(np.int64)
    return codes, [*values, None] if found.null_count else values


def _ages(column: pa.ChunkedArray, bounds: Sequence[float]) -> tuple[Codes, list[str]]:
    """The number of each row's age of the list, and the names of the ages."""
    names = list_ages(bounds)
    if column.null_count == len(column):
        return np.zeros(len(column), dtype=np.int64), [NONE]
    upper = [hours * _HOUR_MS for hours in bounds]
    codes = np.searchsorted(upper, pc.fill_null(column, 0).to_numpy(), side="right").astype(np.int64)
    return np.where(column.is_null().to_numpy(zero_copy_only=False), len(names), codes), [*names, NONE]


def _paired(codes: Codes, tuples: list[Any], more: Codes, values: list[Any]) -> tuple[Codes, list[Any]]:
    """Both as one number, of the pairs that are there."""
    if len(values) == 1:
        return codes, [(*found, values[0]) for found in tuples]
    pairs = pa.array(codes * len(values) + more).dictionary_encode()
    there = [divmod(pair, len(values)) for pair in pairs.dictionary.to_pylist()]
    return pairs.indices.to_numpy().astype(np.int64), [(*tuples[first], values[second]) for first, second in there]


def one_array(column: Any) -> Any:
    """A column as one array."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.unify_dictionaries().combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _as(column: Any, kind: Any) -> Any:
    """Of a type of the schema, as one array."""
    array = one_array(column)
    if array.type == kind:
        return array
    if pa.types.is_dictionary(kind):
        return array.dictionary_encode().cast(kind)
    return array.dictionary.take(array.indices) if pa.types.is_dictionary(array.type) else array.cast(kind)
