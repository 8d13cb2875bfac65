import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.avro.generator import schema_text
from schemas.avro.wire import RecordReader, RecordWriter, header, parse_writer_schema, schema_id_of
from schemas.contracts import CONTRACTS, Contract
from schemas.errors import InvalidRecord, WithoutConsent
from schemas.event import Event
from schemas.exposure import Outcome
from schemas.match import FreshMatch
from schemas.queries import QueryRequest
from tests.schemas.avro.strategies import records

HEAD = header(7)
GOOD: dict[str, Any] = {
    "event_id": "e1",
    "user_id": "u1",
    "kind": "search",
    "text": "roses",
    "occurred_at": 1_700_000_000_000,
}


def written(schema: dict[str, Any], fields: dict[str, Any]) -> bytes:
    """A record of a producer with a schema of its own."""
    from io import BytesIO

    import fastavro

    stream = BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), fields)
    return HEAD + stream.getvalue()


def producer_schema(**types: Any) -> dict[str, Any]:
    """What somebody else may call an event."""
    return {
        "type": "record",
        "name": "com.acme.Happening",
        "fields": [{"name": name, "type": kind} for name, kind in types.items()],
    }


PLAIN = {"event_id": "string", "user_id": "string", "kind": "string", "text": "string", "occurred_at": "long"}


def read(schema: dict[str, Any], data: bytes) -> Event:
    return RecordReader(json.dumps(schema), Event).read(data)


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda row: row.name)
@settings(max_examples=40)
@given(data=st.data())
def test_every_record_comes_back_as_it_was(contract: Contract, data: st.DataObject) -> None:
    record = data.draw(records(contract.record))
    text = schema_text(contract.record)
    encoded = RecordWriter(text, contract.record).write(HEAD, record)
    assert RecordReader(text, contract.record).read(encoded) == record


def test_the_header_is_confluents() -> None:
    assert header(0x01020304) == b"\x00\x01\x02\x03\x04"
    assert schema_id_of(b"\x00\x00\x00\x00\x2aabc") == 42
    with pytest.raises(InvalidRecord, match="schema id"):
        schema_id_of(b"\x00\x00\x00")


def test_a_foreign_schema_is_read_by_its_field_names() -> None:
    schema = producer_schema(
        occurred_at={"type": "long", "logicalType": "timestamp-millis"},
        device={"type": "record", "name": "Device", "fields": [{"name": "os", "type": "string"}]},
        kind={"type": "enum", "name": "K", "symbols": ["click", "search"]},
        **{name: kind for name, kind in PLAIN.items() if name not in ("occurred_at", "kind")},
    )
    event = read(schema, written(schema, {**GOOD, "device": {"os": "x"}}))
    assert event == Event(**GOOD)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": "purchase"}, "kind"),
        ({"occurred_at": -1}, "occurred_at"),
        ({"occurred_at": 1_700_000_000_000_000}, "occurred_at"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "a\x00b"}, "user_id"),
        ({"event_id": "a\nb"}, "event_id"),
        ({"text": ""}, "text"),
        ({"text": "x" * 2_001}, "text"),
    ],
)
def test_the_bounds_are_those_of_json(change: dict[str, Any], named: str) -> None:
    schema = producer_schema(**PLAIN)
    with pytest.raises(InvalidRecord, match=rf"\$\.{named}"):
        read(schema, written(schema, {**GOOD, **change}))


@pytest.mark.parametrize("field", GOOD)
def test_an_incompatible_schema_names_the_missing_field(field: str) -> None:
    schema = producer_schema(**{name: kind for name, kind in PLAIN.items() if name != field})
    with pytest.raises(InvalidRecord, match=f"missing required field `{field}`"):
        read(schema, written(schema, GOOD))


def test_a_field_of_another_type_is_named() -> None:
    schema = producer_schema(**{**PLAIN, "occurred_at": "string"})
    with pytest.raises(InvalidRecord, match=r"Expected `int`, got `str` - at `\$\.occurred_at`"):
        read(schema, written(schema, {**GOOD, "occurred_at": "yesterday"}))


@pytest.mark.parametrize("logical", ["timestamp-micros", "timestamp-nanos", "time-millis"])
def test_other_units_of_time_are_refused_before_any_record(logical: str) -> None:
    schema = producer_schema(**{**PLAIN, "occurred_at": {"type": "long", "logicalType": logical}})
    with pytest.raises(InvalidRecord, match=f"occurred_at is written as {logical}"):
        RecordReader(json.dumps(schema), Event)


def test_a_time_stays_a_number_whatever_its_logical_type() -> None:
    """fastavro would make datetime objects of them, at three times the cost."""
    schema = producer_schema(
        **{**PLAIN, "occurred_at": ["null", {"type": "long", "logicalType": "local-timestamp-millis"}]}
    )
    assert read(schema, written(schema, GOOD)).occurred_at == GOOD["occurred_at"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        '"string"',
        "[]",
        "{}",
        '{"type": "record"}',
        '{"type": "record", "name": "E", "fields": [{"name": "x", "type": "nothing"}]}',
        '{"type": "enum", "name": "E", "symbols": ["a"]}',
        '{"type": "record", "name": "E", "fields": [{"name": "next", "type": ["null", "E"]}]}',
        '{"type": "record", "name": "a.E", "fields": [{"name": "all", "type": {"type": "array", "items": "E"}}]}',
    ],
)
def test_a_schema_of_no_use_is_the_records_fault(text: str) -> None:
    with pytest.raises(InvalidRecord, match="writer schema"):
        parse_writer_schema(text)


def test_a_type_used_twice_is_not_taken_for_recursion() -> None:
    part = {"type": "record", "name": "P", "fields": [{"name": "x", "type": "long"}]}
    schema = producer_schema(**PLAIN, first=part, second="com.acme.P")
    fields = {**GOOD, "first": {"x": 1}, "second": {"x": 2}}
    assert read(schema, written(schema, fields)) == Event(**GOOD)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_record_or_invalid(data: bytes) -> None:
    for record in (Event, QueryRequest):
        try:
            RecordReader(schema_text(record), record).read(HEAD + data)
        except InvalidRecord as error:
            assert str(error)


def test_what_follows_the_record_is_not_ignored() -> None:
    data = RecordWriter(schema_text(Event), Event).write(HEAD, Event(**GOOD))
    with pytest.raises(InvalidRecord, match="2 bytes are left over"):
        RecordReader(schema_text(Event), Event).read(data + b"ab")


def test_the_reason_holds_no_text_of_the_reader() -> None:
    schema = producer_schema(**PLAIN)
    data = written(schema, {**GOOD, "text": "secret " * 1_000})
    for broken in (data, data[:-9], data + b"secret"):
        with pytest.raises(InvalidRecord) as caught:
            read(schema, broken)
        assert "secret" not in str(caught.value)


def test_a_broken_event_without_consent_says_so() -> None:
    schema = producer_schema(**PLAIN, consent="boolean")
    with pytest.raises(WithoutConsent):
        read(schema, written(schema, {**GOOD, "text": "", "consent": False}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_does_not_have_are_refused(value: float) -> None:
    match = FreshMatch(
        article_id="a", user_id="u", title="t", url="", query="q", source="student", similarity=value,
        list_age_ms=0, published_at=1, matched_at=1, expires_at=1,
    )  # fmt: skip
    for record, field in (
        (match, "similarity"),
        (Outcome(outcome_id="o", user_id="u", kind="dwell", value=value, occurred_at=1), "value"),
    ):
        text, kind = schema_text(type(record)), type(record)
        data = RecordWriter(text, kind).write(HEAD, record)
        with pytest.raises(InvalidRecord, match=field):
            RecordReader(text, kind).read(data)


def test_a_number_beyond_64_bits_cannot_be_written() -> None:
    record = Outcome(outcome_id="o", user_id="u", kind="click", occurred_at=2**70)
    with pytest.raises(InvalidRecord, match="cannot be written"):
        RecordWriter(schema_text(Outcome), Outcome).write(HEAD, record)


def test_a_profile_that_lacks_its_newest_fields_gets_their_defaults() -> None:
    schema = json.loads(schema_text(QueryRequest))
    profile = next(field["type"] for field in schema["fields"] if field["name"] == "profile")
    profile["fields"] = [field for field in profile["fields"] if field["name"] != "click"]
    data = written(schema, {**msgspec.to_builtins(REQUEST_FIELDS), "profile": {"user_id": "u", "page": [SIGNAL]}})
    request = RecordReader(json.dumps(schema), QueryRequest).read(data)
    assert (request.profile.page[0].text, request.profile.click, request.profile.erased_before) == ("t", (), 0)
    profile["fields"] = [field for field in profile["fields"] if field["name"] != "user_id"]
    data = written(schema, {**REQUEST_FIELDS, "profile": {"page": []}})
    with pytest.raises(InvalidRecord, match="missing required field `user_id`"):
        RecordReader(json.dumps(schema), QueryRequest).read(data)


SIGNAL = {"occurred_at": 1, "event_id": "e", "text": "t"}
REQUEST_FIELDS = {"user_id": "u", "profile_fingerprint": "f", "requested_at": 1}
