"""The files of a log: every row is read once whatever the format and the cuts; wrong columns are named."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline.experiments.definition import LogFiles
from offline.experiments.log_columns import log_columns
from offline.experiments.log_files import Format, Slice, cut_files, find_files, make_parts, read_slice
from schemas.errors import UsageError
from schemas.names import Topic
from tests.offline.experiments.log_folders import as_row, sound_log, totals, write_log, write_rows
from tests.offline.experiments.log_rows import ANALYSIS

EXPOSURES = log_columns("exposures", LogFiles())


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_every_format_gives_the_same_totals(tmp_path: Path, form: Format) -> None:
    log = sound_log(1, users=30)
    found = [
        totals(ANALYSIS, write_log(tmp_path / name, log, form=name), tmp_path / f"out-{name}")
        for name in ("parquet", form)
    ]
    assert msgspec.json.encode(found[0].tally.counts) == msgspec.json.encode(found[1].tally.counts)
    first, second = (one.tally.total(lambda key: True) for one in found)
    assert [m.mean.tolist() for m in first.moments] == [m.mean.tolist() for m in second.moments]
    assert found[1].log.quarantined == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), min_size=1), max_size=20), st.data())
def test_every_line_is_in_one_range(tmp_path_factory: pytest.TempPathFactory, texts: list[str], data: Any) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    path.write_bytes("".join(json.dumps({"t": text}) + "\n" for text in texts).encode())
    size = path.stat().st_size
    cuts = sorted(data.draw(st.sets(st.integers(min_value=1, max_value=max(1, size)))) - {size})
    edges = [0, *cuts, size]
    slices = [Slice(path=str(path), format="jsonl", first_byte=low, last_byte=high) for low, high in pairwise(edges)]
    lines = [row for one in slices for batch in read_slice(one, []) for row in batch.rows["line"].to_pylist()]
    assert [json.loads(line)["t"] for line in lines] == texts


def test_parts_hold_many_small_files_and_cut_a_large_one(tmp_path: Path) -> None:
    log = sound_log(2, users=40)
    small = write_log(tmp_path / "small", log, files=8)
    slices = cut_files(find_files(small, Topic.EXPOSURES), EXPOSURES)
    assert len(slices) == 8
    assert len(make_parts("exposures", slices, part_rows=10_000)) == 1
    large = write_log(tmp_path / "large", log, row_group=10)
    parts = make_parts("exposures", cut_files(find_files(large, Topic.EXPOSURES), EXPOSURES), part_rows=20, first=3)
    assert [part.number for part in parts] == list(range(3, 3 + len(parts)))
    assert sum(part.rows for part in parts) == len(log[0])
    assert max(part.rows for part in parts) <= 20 + 10


def test_hidden_files_and_those_of_the_worker_are_not_the_log(tmp_path: Path) -> None:
    folder = write_log(tmp_path, sound_log(3))
    (file,) = find_files(folder, Topic.EXPOSURES)
    for name in ("_tmp.parquet", ".x.parquet"):
        (file.parent / name).write_bytes(file.read_bytes())
    (file.parent / "notes.txt").write_text("no log")
    assert find_files(folder, Topic.EXPOSURES) == [file]


def test_a_missing_column_is_named_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"exposure_id": ["a"], "request_id": ["r"]}), path)
    with pytest.raises(UsageError, match=r"a\.parquet: there is no column user_id \(of the field user_id\)"):
        cut_files([path], EXPOSURES)


def test_a_column_of_another_type_is_named(tmp_path: Path) -> None:
    rows = [as_row(row) for row in sound_log(4)[0]]
    path = write_rows(tmp_path, Topic.EXPOSURES, rows, "parquet")
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.set_column(5, "phase", pa.array(["one"] * len(rows))), path)
    with pytest.raises(UsageError, match=r"column phase \(of the field phase\) is string, not integer"):
        cut_files([path], EXPOSURES)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(UsageError, match=r"a\.parquet is not parquet, or is damaged"):
        cut_files([path], EXPOSURES)


def test_other_names_and_constants(tmp_path: Path) -> None:
    exposures, outcomes = sound_log(5, users=30)
    rows = []
    for record in exposures:
        row = as_row(record)
        row["uid"], row["when"] = row.pop("user_id"), row.pop("exposed_at")
        del row["triggered"], row["source"]
        rows.append(row)
    write_rows(tmp_path, Topic.EXPOSURES, rows, "jsonl")
    write_rows(tmp_path, Topic.OUTCOMES, [as_row(row) for row in outcomes], "jsonl")
    names = LogFiles(
        exposure_columns={"user_id": "uid", "exposed_at": "when"},
        exposure_constants={"triggered": True, "source": "interest"},
    )
    mapped = totals(msgspec.structs.replace(ANALYSIS, log=names), tmp_path, tmp_path / "out")
    plain = totals(ANALYSIS, write_log(tmp_path / "plain", (exposures, outcomes)), tmp_path / "plain-out")
    first, second = (one.tally.total(lambda key: True) for one in (mapped, plain))
    assert [m.mean.tolist() for m in first.moments] == [m.mean.tolist() for m in second.moments]
    assert first.triggered == first.exposed


def test_a_mapping_of_an_unknown_field_is_refused() -> None:
    with pytest.raises(UsageError, match=r"log\.exposure_columns: exposures have no field uid"):
        log_columns("exposures", LogFiles(exposure_columns={"uid": "user_id"}))
