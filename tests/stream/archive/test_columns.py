"""From records to columns, and what is left out."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.archive import ARCHIVED, OFFSET, PARTITION, records
from schemas.codec import EVENTS, EXPOSURES
from schemas.codecs import JSON_CODECS
from schemas.event import Event
from schemas.exposure import Exposure
from schemas.names import Header, Topic
from stream.archive.columns import Columns, LeftOut
from stream.dead_letters import read_dead_letter
from tests.schemas.strategies import events
from tests.stream.archive.consumed import NOON, Consumed, consumed, event


def build(*rows: Consumed) -> Any:
    return Columns(Topic.USER_EVENTS, EVENTS).build(rows, NOON)


@settings(deadline=None)  # pyarrow loads pandas at the first column
@given(st.lists(events(), max_size=20))
def test_events_come_back_as_they_were(given: list[Event]) -> None:
    chunk = build(*(Consumed(offset, EVENTS.encode(row)) for offset, row in enumerate(given)))
    assert list(records(chunk.rows, Topic.USER_EVENTS)) == given
    assert chunk.rows.column(OFFSET).to_pylist() == list(range(len(given)))
    assert chunk.left_out == LeftOut()


@pytest.mark.parametrize("topic", ARCHIVED)
def test_every_topic_has_columns_for_its_contract(topic: str) -> None:
    nothing = Columns(topic, JSON_CODECS.of(topic)).build([], NOON)
    assert nothing.rows.num_rows == 0
    assert nothing.rows.column_names[: len(ARCHIVED[topic].record_type.__struct_fields__)] == list(
        ARCHIVED[topic].record_type.__struct_fields__
    )


def test_what_is_left_out_is_counted() -> None:
    refused = EVENTS.encode(event(3, consent=False))
    broken_refusal = b'{"user_id": "reader", "consent": false}'
    again = Consumed(4, EVENTS.encode(event(4)), headers=[(Header.REPLAYED_FROM, b"user-events:0:1")])
    chunk = build(consumed(0), Consumed(1, None), Consumed(2, b"not JSON"), Consumed(3, refused), again,
                  Consumed(5, broken_refusal))  # fmt: skip
    assert chunk.left_out == LeftOut(tombstones=1, undecodable=1, without_consent=2, replayed=1)
    assert chunk.rows.column(OFFSET).to_pylist() == [0]


def test_what_does_not_decode_is_a_dead_letter_with_its_origin() -> None:
    (refused,) = build(Consumed(7, b"not JSON", partition=2)).refused
    read = read_dead_letter(dict(refused.letter.headers), refused.letter.value or b"")
    assert (read.letter_id, read.stage, read.value) == ("user-events:2:7", "archive", b"not JSON")


def test_an_event_under_another_readers_key_is_refused_as_the_profiles_refuse_it() -> None:
    chunk = build(Consumed(0, EVENTS.encode(event(0)), key=b"somebody"))
    assert chunk.left_out.undecodable == 1
    assert b"user_id" in dict(chunk.refused[0].letter.headers)[Header.REASON]


def test_a_value_that_fits_no_column_costs_only_its_own_record() -> None:
    def exposure(offset: int, slot: int) -> Consumed:
        row = Exposure(
            exposure_id="x", request_id="r", user_id="u", triggered=True, position=1, propensity=1.0,
            source="student", query_slot=slot, exposed_at=NOON,
        )  # fmt: skip
        return Consumed(offset, EXPOSURES.encode(row), topic=Topic.EXPOSURES)

    chunk = Columns(Topic.EXPOSURES, EXPOSURES).build([exposure(n, 2**63 if n == 5 else n) for n in range(9)], NOON)
    assert chunk.rows.column(OFFSET).to_pylist() == [0, 1, 2, 3, 4, 6, 7, 8]
    assert [refused.letter.key for refused in chunk.refused] == [b"exposures:0:5"]


def test_counts_add_up() -> None:
    total = LeftOut(tombstones=1, erased=2) + LeftOut(tombstones=3, replayed=4)
    assert (total, total.total) == (LeftOut(tombstones=4, erased=2, replayed=4), 10)


def test_the_partition_is_told() -> None:
    row = consumed(0)._replace(partition=3)
    assert build(row).rows.column(PARTITION).to_pylist() == [3]
    assert msgspec.structs.fields(Event)[0].name == build(row).rows.column_names[0]
