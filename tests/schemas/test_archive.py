"""The archive's files as offline jobs read them."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.archive import (
    ARCHIVED,
    BROKER_COLUMNS,
    TIME,
    ArchiveFile,
    archive_files,
    archive_schema,
    parse_file,
    read_archive_file,
    records,
)
from schemas.article import Article
from schemas.errors import UsageError
from schemas.event import Event
from schemas.exposure import Exposure, Outcome
from schemas.names import Topic
from schemas.queries import QueryList

AT = 1_767_614_400_000
ROWS = {
    Topic.USER_EVENTS: Event(event_id="e", user_id="u", kind="page", text="t", occurred_at=AT, locale="en"),
    Topic.QUERY_LISTS: QueryList(
        user_id="u", queries=("a", "b"), signals=(), source="student", profile_fingerprint="f", model="m",
        model_version="1", prompt_version="1", generated_at=AT, expires_at=AT + 1,
    ),
    Topic.ARTICLES: Article(article_id="a", title="T", url="https://x", source="s", published_at=AT, expires_at=AT),
    Topic.EXPOSURES: Exposure(
        exposure_id="x", request_id="r", user_id="u", triggered=True, position=1, propensity=0.5, source="student",
        exposed_at=AT, query_slot=3,
    ),
    Topic.OUTCOMES: Outcome(outcome_id="o", user_id="u", kind="dwell", value=12.5, occurred_at=AT),
}  # fmt: skip


def table(topic: str) -> pa.Table:
    row = ROWS[topic]
    contract = [pa.array([getattr(row, name)], archive_schema(topic).field(name).type) for name in fields(topic)]
    return pa.table([*contract, *(pa.array([1], f.type) for f in BROKER_COLUMNS)], archive_schema(topic))


def fields(topic: str) -> tuple[str, ...]:
    return ARCHIVED[topic].record_type.__struct_fields__


@pytest.mark.parametrize("topic", ARCHIVED)
def test_a_row_comes_back_as_the_record_it_was(topic: str, tmp_path: Path) -> None:
    pq.write_table(table(topic), tmp_path / "0-1-1.parquet")
    assert list(records(read_archive_file(tmp_path / "0-1-1.parquet", topic), topic)) == [ROWS[topic]]


@pytest.mark.parametrize("topic", ARCHIVED)
def test_every_time_is_a_timestamp_and_every_topic_has_its_own(topic: str) -> None:
    schema = archive_schema(topic)
    assert schema.field(ARCHIVED[topic].time_field).type == TIME
    assert {field.name for field in schema if field.type == TIME} == {
        *(name for name in fields(topic) if name.endswith("_at")),
        "kafka_timestamp",
    }
    assert ARCHIVED[topic].of_readers == (topic != Topic.ARTICLES)


def test_a_missing_column_is_named_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "0-1-1.parquet"
    pq.write_table(table(Topic.USER_EVENTS).drop_columns(["text"]), path)
    with pytest.raises(UsageError, match=r"0-1-1\.parquet has no column text"):
        read_archive_file(path, Topic.USER_EVENTS)
    assert read_archive_file(path, Topic.USER_EVENTS, ["user_id"]).to_pylist() == [{"user_id": "u"}]


def test_a_column_that_was_added_later_has_its_default_in_older_files(tmp_path: Path) -> None:
    path = tmp_path / "0-1-1.parquet"
    pq.write_table(table(Topic.USER_EVENTS).drop_columns(["consent", "locale"]), path)
    (row,) = records(read_archive_file(path, Topic.USER_EVENTS), Topic.USER_EVENTS)
    assert (row.consent, row.locale) == (True, None)


def test_a_column_of_another_type_is_named(tmp_path: Path) -> None:
    path = tmp_path / "0-1-1.parquet"
    rows = table(Topic.OUTCOMES)
    place = rows.column_names.index("value")
    pq.write_table(rows.set_column(place, "value", pa.array(["much"])), path)
    with pytest.raises(UsageError, match=r"column value is string where double is wanted"):
        read_archive_file(path, Topic.OUTCOMES)


def test_a_file_that_is_no_parquet_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "0-1-1.parquet"
    path.write_bytes(b"<html>")
    with pytest.raises(UsageError, match="is not a file of the archive"):
        read_archive_file(path, Topic.USER_EVENTS)


files = st.builds(
    ArchiveFile, st.none() | st.dates(), st.integers(0, 99), st.integers(0, 10**12), st.integers(0, 10**12)
)


@given(files)
def test_a_files_name_says_what_it_is(file: ArchiveFile) -> None:
    assert parse_file(Path("archive/user-events") / file.name) == file


@pytest.mark.parametrize("name", ["_staging/0-1-2.parquet", "date=2026-01-05/x.parquet", "date=2026/0-1-2.parquet"])
def test_other_files_are_none_of_the_archive(name: str) -> None:
    assert parse_file(Path(name)) is None


def test_files_are_found_by_day_partition_and_offset(tmp_path: Path) -> None:
    days = (date(2026, 1, 4), date(2026, 1, 5), date(2026, 1, 6), None)
    wanted = [
        ArchiveFile(day, partition, first, first + 9) for day in days for partition in (0, 1) for first in (0, 10)
    ]
    for file in reversed(wanted):
        path = tmp_path / Topic.USER_EVENTS / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert [parse_file(path) for path in archive_files(tmp_path, Topic.USER_EVENTS)] == wanted
    some = archive_files(tmp_path, Topic.USER_EVENTS, date(2026, 1, 5), date(2026, 1, 6))
    assert [parse_file(path) for path in some] == wanted[4:12]
    assert [parse_file(path) for path in archive_files(tmp_path, Topic.USER_EVENTS, last=date(2026, 1, 4))] == wanted[
        :4
    ]
    assert archive_files(tmp_path, Topic.OUTCOMES) == []
