"""Records to ranges: whatever the batches, holes and rolls, each offset belongs to exactly one range."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.archive import OFFSET
from schemas.codec import EVENTS
from schemas.config import Archive
from schemas.names import Topic
from stream.archive.columns import Columns
from stream.archive.in_hand import CHUNK_RECORDS, Gathered, InHand
from tests.stream.archive.consumed import NOON, Consumed, consumed

COLUMNS = Columns(Topic.USER_EVENTS, EVENTS)


@st.composite
def polls(draw: st.DrawFn) -> list[list[Consumed]]:
    """Batches of records with holes between their offsets; some are tombstones, some do not decode."""
    offset, batches = 0, []
    for size in draw(st.lists(st.integers(1, 5), min_size=1, max_size=12)):
        batch = []
        for _ in range(size):
            offset += draw(st.integers(1, 3))
            made = draw(st.sampled_from(["event", "event", "tombstone", "broken"]))
            value = {"event": consumed(offset).value, "tombstone": None, "broken": b"{"}[made]
            batch.append(Consumed(offset, value))
        batches.append(batch)
    return batches


def ranges(batches: list[list[Consumed]], roll_records: int) -> list[Gathered]:
    found, held = [], InHand(0, COLUMNS)
    for batch in batches:
        held.take(batch, NOON)
        if held.due(Archive(roll_records=roll_records), NOON):
            found.append(held.gathered(NOON))
            held = InHand(found[-1].last + 1, COLUMNS)
    return [*found, held.gathered(NOON)] if held else found


@settings(deadline=None)
@given(polls(), st.integers(1, 12))
def test_ranges_follow_each_other_and_hold_every_record(batches: list[list[Consumed]], roll_records: int) -> None:
    found = ranges(batches, roll_records)
    assert [row.first for row in found] == [0, *(row.last + 1 for row in found[:-1])]
    sent = [record for batch in batches for record in batch]
    assert found[-1].last == sent[-1].offset
    for row in found:
        inside = [record for record in sent if row.first <= record.offset <= row.last]
        rows = row.rows.column(OFFSET).to_pylist()
        assert rows == [record.offset for record in inside if record.value and record.value != b"{"]
        assert len(inside) == len(rows) + row.left_out.total
        assert len(row.refused) == row.left_out.undecodable


def test_a_range_is_due_by_records_by_bytes_and_by_time() -> None:
    held = InHand(0, COLUMNS)
    held.take([consumed(offset) for offset in range(10)], NOON)
    assert not held.due(Archive(), NOON + 299_999)
    assert held.due(Archive(roll_records=10), NOON)
    assert held.due(Archive(roll_megabytes=0.0005), NOON)
    assert held.due(Archive(), NOON + 300_000)
    assert not InHand(0, COLUMNS).due(Archive(roll_seconds=0), NOON)


def test_an_offset_that_was_read_before_is_refused() -> None:
    held = InHand(0, COLUMNS)
    held.take([consumed(3)], NOON)
    with pytest.raises(ValueError, match="offset 3 was read where 4"):
        held.take([consumed(3)], NOON)


def test_whole_chunks_are_decoded_as_they_come() -> None:
    held = InHand(0, COLUMNS)
    held.take([consumed(offset) for offset in range(CHUNK_RECORDS + 1)], NOON)
    held.decode(NOON)
    assert held.gathered(NOON).rows.num_rows == CHUNK_RECORDS + 1
