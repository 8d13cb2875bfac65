"""Archived events sent again."""

from datetime import date
from pathlib import Path

import pytest

from schemas.codec import EVENTS
from schemas.names import Header, Topic
from stream.archive.columns import Columns, LeftOut
from stream.archive.ranges import Ranges
from stream.archive.replaying import BATCH, events_to_replay, replay_events
from stream.producer import MemoryProducer
from tests.stream.archive.consumed import DAY, NOON, Consumed, event, event_rows

TODAY, YESTERDAY = date(2026, 1, 5), date(2026, 1, 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ranges = Ranges(tmp_path / Topic.USER_EVENTS, 2)
    days = [(TODAY, event_rows([1, 2])), (YESTERDAY, event_rows([0], NOON - DAY)), (None, event_rows([3], 0))]
    ranges.commit(0, 9, days)
    return tmp_path


async def test_the_events_of_the_days_are_sent_as_they_were_with_where_they_came_from(folder: Path) -> None:
    files, events = events_to_replay(folder, TODAY, TODAY)
    assert (len(files), events) == (1, 2)
    producer, seen = MemoryProducer(), list[int]()
    assert await replay_events(files, producer, on_sent=seen.append) == sum(seen) == 2
    assert [EVENTS.decode(message.value) for message in producer.sent] == [event(1), event(2)]
    assert {(message.topic, message.key) for message in producer.sent} == {(Topic.USER_EVENTS, b"reader")}
    assert producer.sent[0].headers == ((Header.REPLAYED_FROM, b"user-events:0:1"),)


async def test_the_archive_leaves_a_replayed_event_out(folder: Path) -> None:
    files, _ = events_to_replay(folder, YESTERDAY, TODAY)
    producer = MemoryProducer()
    await replay_events(files, producer)
    again = [Consumed(n, row.value, row.key, headers=row.headers) for n, row in enumerate(producer.sent)]
    chunk = Columns(Topic.USER_EVENTS, EVENTS).build(again, NOON)
    assert (chunk.rows.num_rows, chunk.left_out) == (0, LeftOut(replayed=3))


def test_implausible_dates_are_never_replayed(folder: Path) -> None:
    assert events_to_replay(folder, date.min, date.max)[1] == 3


def test_days_without_files_are_nothing_to_replay(folder: Path) -> None:
    assert events_to_replay(folder, date(2020, 1, 1), date(2020, 1, 2)) == ([], 0)


async def test_a_long_file_is_sent_in_batches(tmp_path: Path) -> None:
    Ranges(tmp_path / Topic.USER_EVENTS, 0).commit(0, 2 * BATCH, [(TODAY, event_rows(range(2 * BATCH + 1)))])
    files, _ = events_to_replay(tmp_path, TODAY, TODAY)
    batches = list[int]()
    await replay_events(files, MemoryProducer(), on_sent=batches.append)
    assert batches == [BATCH, BATCH, 1]
