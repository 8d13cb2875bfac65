"""A reader's rows taken out of the files."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.archive import READER, archive_files, archive_schema
from schemas.codecs import JSON_CODECS
from schemas.exposure import Exposure, Outcome
from schemas.names import Topic
from schemas.queries import QueryList
from stream.archive.columns import Columns
from stream.archive.erasing import (
    ERASING,
    ErasedFile,
    erase_from_archive,
    erase_readers,
    erase_rows,
    erased_rows,
    find_in_archive,
    without_erased,
)
from stream.archive.ranges import Ranges
from tests.stream.archive.consumed import DAY, NOON, Consumed, event_rows

TODAY, YESTERDAY = date(2026, 1, 5), date(2026, 1, 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Events of two readers in three files, ann's in two of them."""
    ranges = Ranges(tmp_path / Topic.USER_EVENTS, 0)
    both = [event_rows([0, 2, 4], NOON, "ann"), event_rows([1, 3], NOON, "bob")]
    ranges.commit(0, 9, [(TODAY, pa_concat(both)), (YESTERDAY, event_rows([5], NOON - DAY, "ann"))])
    ranges.commit(10, 19, [(TODAY, event_rows([10, 11], NOON, "bob"))])
    return tmp_path


def pa_concat(tables: list[pa.Table]) -> pa.Table:

    return pa.concat_tables(tables)


def test_only_the_readers_rows_up_to_the_time_go_and_only_their_files_are_rewritten(folder: Path) -> None:
    times = {path: path.stat().st_mtime_ns for path in archive_files(folder, Topic.USER_EVENTS)}
    seen: list[ErasedFile] = []
    erased = erase_from_archive(folder, "ann", NOON - 1, seen.append)
    assert [(row.path, row.topic, row.rows, row.kept) for row in erased] == [
        ("user-events/date=2026-01-04/0-0-9.parquet", Topic.USER_EVENTS, 1, 0)
    ]
    assert seen == erased
    changed = [path.parent.name for path in times if path.stat().st_mtime_ns != times[path]]
    assert changed == ["date=2026-01-04"]
    assert find_in_archive(folder, "ann")[Topic.USER_EVENTS] == 3
    assert find_in_archive(folder, "ann", NOON - 1)[Topic.USER_EVENTS] == 0


def test_what_claims_to_be_of_the_future_goes_when_it_arrived_before_the_wish(tmp_path: Path) -> None:
    ahead = event_rows([0, 1], NOON + 70 * 365 * DAY, "ann")  # as all of them arrived at noon
    Ranges(tmp_path / Topic.USER_EVENTS, 0).commit(0, 9, [(None, ahead)])
    assert find_in_archive(tmp_path, "ann", NOON - 1)[Topic.USER_EVENTS] == 0
    assert erase_from_archive(tmp_path, "ann", NOON - 1) == []
    assert find_in_archive(tmp_path, "ann", NOON)[Topic.USER_EVENTS] == 2
    assert [file.rows for file in erase_from_archive(tmp_path, "ann", NOON)] == [2]
    assert find_in_archive(tmp_path, "ann")[Topic.USER_EVENTS] == 0


def test_the_time_of_the_erasure_itself_is_included_and_other_readers_stay(folder: Path) -> None:
    erase_from_archive(folder, "ann", NOON)
    assert find_in_archive(folder, "ann") == dict.fromkeys(
        [Topic.USER_EVENTS, Topic.QUERY_LISTS, Topic.EXPOSURES, Topic.OUTCOMES], 0
    )
    assert find_in_archive(folder, "bob")[Topic.USER_EVENTS] == 4


def test_a_rewritten_file_says_how_many_rows_it_lost_and_keeps_its_columns(folder: Path) -> None:
    path = folder / Topic.USER_EVENTS / "date=2026-01-05/0-0-9.parquet"
    assert erased_rows(path) == 0
    erase_from_archive(folder, "ann", NOON)
    erase_from_archive(folder, "bob", NOON)
    assert erased_rows(path) == 5
    assert pq.read_schema(path).remove_metadata() == archive_schema(Topic.USER_EVENTS)


def test_erasing_again_and_erasing_an_unknown_reader_changes_nothing(folder: Path) -> None:
    assert erase_from_archive(folder, "ann", NOON)
    assert erase_from_archive(folder, "ann", NOON) == []
    assert erase_from_archive(folder, "nobody", NOON) == []
    assert erase_from_archive(folder / "missing", "ann", NOON) == []
    assert not (folder / "missing").exists()


def test_several_readers_are_erased_in_one_go(folder: Path) -> None:
    assert sum(row.rows for row in erase_readers(folder, {"ann": NOON, "bob": NOON, "nobody": NOON})) == 8


def test_what_a_killed_run_left_is_removed(folder: Path) -> None:
    (folder / ERASING).mkdir()
    left = folder / ERASING / "half.tmp"
    left.write_bytes(b"reader data")
    erase_from_archive(folder, "nobody", NOON)
    assert not left.exists()


def test_lists_exposures_and_outcomes_of_a_reader_go_too(tmp_path: Path) -> None:
    rows = {
        Topic.QUERY_LISTS: QueryList(
            user_id="ann", queries=("a",), signals=(), source="student", profile_fingerprint="f", model="m",
            model_version="1", prompt_version="1", generated_at=NOON, expires_at=NOON + DAY,
        ),
        Topic.EXPOSURES: Exposure(
            exposure_id="x", request_id="r", user_id="ann", triggered=True, position=1, propensity=1.0,
            source="student", exposed_at=NOON,
        ),
        Topic.OUTCOMES: Outcome(outcome_id="o", user_id="ann", kind="click", occurred_at=NOON),
    }  # fmt: skip
    for topic, row in rows.items():
        codec = JSON_CODECS.of(topic)
        table = Columns(topic, codec).build([Consumed(0, codec.encode(row), topic=topic)], NOON).rows
        Ranges(tmp_path / topic, 0).commit(0, 0, [(TODAY, table)])
    assert find_in_archive(tmp_path, "ann") == {Topic.USER_EVENTS: 0, **dict.fromkeys(rows, 1)}
    assert {row.topic for row in erase_from_archive(tmp_path, "ann", NOON)} == set(rows)
    assert sum(find_in_archive(tmp_path, "ann").values()) == 0


def test_rows_of_named_files_are_erased_and_articles_have_no_reader(folder: Path) -> None:
    path = folder / Topic.USER_EVENTS / "date=2026-01-05/0-0-9.parquet"
    assert [row.rows for row in erase_rows(folder, Topic.USER_EVENTS, [path], {"ann": NOON})] == [3]
    assert erase_rows(folder, Topic.ARTICLES, [path], {"ann": NOON}) == []


def test_a_table_without_erased_readers_is_not_copied() -> None:
    rows = event_rows(range(3), NOON, "ann")
    assert without_erased(rows, Topic.USER_EVENTS, {"bob": NOON}) is rows
    assert without_erased(rows, Topic.USER_EVENTS, {"ann": NOON - 1}) is rows
    assert without_erased(rows, Topic.USER_EVENTS, {}) is rows
    assert without_erased(rows, Topic.USER_EVENTS, {"ann": NOON}).column(READER).to_pylist() == []
