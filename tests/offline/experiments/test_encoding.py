"""Rows between the two passes: the same codes however a file stores text, every row in its reader's bucket, once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline.experiments.definition import LogFiles
from offline.experiments.encoding import coded_rows, coded_schema, hashed
from offline.experiments.happened import Names, once
from offline.experiments.log_columns import NAME, log_columns, typed_rows
from offline.experiments.splits import bucket_rows, read_bucket, write_split
from offline.experiments.splitting import open_session
from schemas.exposure import Exposure
from tests.offline.experiments.log_rows import ANALYSIS, random_log, table

COLUMNS = tuple(log_columns("exposures", LogFiles()))
SCHEMA = coded_schema("exposures", COLUMNS, policies=True)


def coded(rows: pa.Table) -> pa.Table:
    with open_session() as session:
        return coded_rows(typed_rows(rows, COLUMNS).rows, SCHEMA, ANALYSIS, session)


def as_dictionaries(rows: pa.Table, pieces: int) -> pa.Table:
    """Each piece with dictionaries of its own, as row groups have them."""
    size = -(-rows.num_rows // pieces)
    parts = [rows.slice(at, size).combine_chunks() for at in range(0, rows.num_rows, size)]
    names = [field.name for field in rows.schema if field.type == pa.string()]
    for n, part in enumerate(parts):
        for name in names:
            part = part.set_column(part.column_names.index(name), name, part[name].combine_chunks().dictionary_encode())
        parts[n] = part
    return pa.concat_tables(parts)


@pytest.mark.parametrize("pieces", [1, 4])
def test_text_and_dictionaries_give_the_same_codes(pieces: int) -> None:
    rows = table(random_log(1, users=40)[0], Exposure)
    assert coded(as_dictionaries(rows, pieces)).to_pylist() == coded(rows).to_pylist()


def test_the_hash_of_nothing_is_nothing() -> None:
    texts = pa.chunked_array([["a", None, "b", "a"], pa.array([], pa.string())])
    with open_session() as session:
        found = hashed(texts, session).to_pylist()
        again = hashed(texts.dictionary_encode(), session).to_pylist()
    assert found == again
    assert found[1] is None
    assert found[0] == found[3] != found[2]


def test_places_are_told_apart_by_all_that_brought_them() -> None:
    exposures, _ = random_log(2, users=40)
    sources = ("student", "popular", "recent")
    rows = [
        msgspec.structs.replace(
            row,
            source=sources[n % 3],
            query_slot=(None, 0, 4)[n // 3 % 3],
            list_age_ms=(None, 0, 3_600_000, 10**9)[n // 9 % 4],
            model=("", "m")[n // 36 % 2],
            model_version="7",
        )
        for n, row in enumerate(exposures)
    ]
    found = [msgspec.json.decode(label) for label in coded(table(rows, Exposure))["place"].to_pylist()]
    ages = {None: "none", 0: "under 1 h", 3_600_000: "1 to 6 h", 10**9: "over 3 days"}
    for row, place in zip(rows, found, strict=True):
        slot = "none" if row.query_slot is None else str(row.query_slot)
        assert place == [row.source, slot, ages[row.list_age_ms], "m 7" if row.model else "none", "none"]


@settings(max_examples=10, deadline=None)
@given(st.integers(min_value=0, max_value=1_000), st.integers(min_value=1, max_value=9))
def test_every_row_is_in_its_readers_bucket_once(
    tmp_path_factory: pytest.TempPathFactory, seed: int, buckets: int
) -> None:
    whole = coded(table(random_log(seed, users=30)[0], Exposure))
    parts = [whole.slice(0, whole.num_rows // 3), whole.slice(whole.num_rows // 3)]
    folder, paths = tmp_path_factory.mktemp("splits"), []
    with open_session() as session:
        for n, part in enumerate(parts):
            paths.append(str(folder / f"{n}.arrow"))
            write_split(Path(paths[-1]), bucket_rows(part, buckets, session))
    read = [read_bucket(paths, bucket, SCHEMA) for bucket in range(buckets)]
    assert sorted(map(str, pa.concat_tables(read).to_pylist())) == sorted(map(str, whole.to_pylist()))
    readers = [set(bucket["user_id"].to_pylist()) for bucket in read]
    assert sum(map(len, readers)) == len(set().union(*readers))


def test_a_bucket_without_readers_has_no_rows(tmp_path: Path) -> None:
    rows = coded(table(random_log(3, users=2)[0], Exposure))
    with open_session() as session:
        write_split(tmp_path / "0.arrow", bucket_rows(rows, 50, session))
    read = [read_bucket([str(tmp_path / "0.arrow")], bucket, SCHEMA) for bucket in range(50)]
    assert sum(bucket.num_rows > 0 for bucket in read) <= 2
    assert {bucket.schema.field("user_id").type for bucket in read} == {NAME}


@given(st.lists(st.tuples(st.integers(min_value=0, max_value=30), st.integers(min_value=0, max_value=5)), max_size=80))
def test_of_rows_with_one_key_the_least_is_kept(rows: list[tuple[int, int]]) -> None:
    keys = np.array([key for key, _ in rows], dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    ties = np.array([tie for _, tie in rows], dtype=np.int64)
    kept = [rows[at] for at in np.flatnonzero(once(keys, (ties,)))]
    assert sorted(kept) == sorted({key: min(t for k, t in rows if k == key) for key, _ in rows}.items())


@given(st.lists(st.lists(st.text(max_size=3), min_size=1, max_size=8), min_size=1, max_size=4))
def test_names_rise_over_all_chunks(chunks: Sequence[Sequence[Any]]) -> None:
    column = pa.chunked_array([pa.array(chunk, pa.string()).dictionary_encode() for chunk in chunks])
    found = Names.of(column)
    names = found.values.to_pylist()
    assert names == sorted({name for chunk in chunks for name in chunk}, key=str.encode)
    assert [names[code] for code in found.codes] == [name for chunk in chunks for name in chunk]
