import json
from typing import Literal

import fastavro
import msgspec
import pytest

from schemas.avro.generator import avro_schema, schema_text, timestamp_fields
from schemas.contracts import CONTRACTS, Contract
from schemas.event import Event
from schemas.queries import QueryRequest


def field(record: type[msgspec.Struct], name: str) -> dict[str, object]:
    found = [row for row in avro_schema(record)["fields"] if row["name"] == name]
    return dict(found[0])


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda row: row.name)
def test_every_record_has_a_schema_that_fastavro_takes(contract: Contract) -> None:
    parsed = fastavro.parse_schema(json.loads(schema_text(contract.record)))
    assert parsed["name"] == f"keenstream.{contract.name}"
    assert [row["name"] for row in parsed["fields"]] == [row.name for row in msgspec.structs.fields(contract.record)]
    assert contract.key in [row["name"] for row in parsed["fields"]]


def test_types_defaults_bounds_and_units() -> None:
    assert field(Event, "event_id") == {"name": "event_id", "type": "string", "doc": "1 to 128 characters"}
    assert field(Event, "occurred_at")["type"] == {"type": "long", "logicalType": "timestamp-millis"}
    assert field(Event, "url")["type"] == ["null", "string"]
    assert field(Event, "url")["default"] is None
    assert field(Event, "consent") == {"name": "consent", "type": "boolean", "default": True}
    assert field(Event, "kind")["type"] == {
        "type": "enum",
        "name": "EventKind",
        "symbols": ["click", "page", "search"],
    }


def test_a_type_is_defined_where_it_first_occurs() -> None:
    profile = field(QueryRequest, "profile")["type"]
    assert isinstance(profile, dict)
    page, search = profile["fields"][1], profile["fields"][2]
    assert page["type"]["items"]["name"] == "Signal"
    assert (search["type"]["items"], search["default"]) == ("Signal", [])


def test_names_of_types_differ_between_records() -> None:
    """Readers that generate classes would take two enums of one name for one."""
    names: list[str] = []
    for contract in CONTRACTS:
        known: dict[str, object] = {}
        fastavro.parse_schema(avro_schema(contract.record), named_schemas=known)
        names += known
    assert len(names) == len(set(names))


def test_times_are_known_by_their_names() -> None:
    assert timestamp_fields(QueryRequest) == {"requested_at", "accepted_at"}


class Odd(msgspec.Struct):
    what: dict[str, int]


class Ambiguous(msgspec.Struct):
    what: int | None = 3


class Mixed(msgspec.Struct):
    what: int | str = 3


class Coloured(msgspec.Struct):
    hair_colour: Literal["red"] | None = None


@pytest.mark.parametrize("record", [Odd, Ambiguous, Mixed])
def test_what_has_no_schema_is_a_bug_in_the_struct(record: type[msgspec.Struct]) -> None:
    with pytest.raises(TypeError, match="what"):
        avro_schema(record)


def test_enums_are_named_after_record_and_field() -> None:
    kind = field(Coloured, "hair_colour")["type"]
    assert isinstance(kind, list) and kind[1]["name"] == "ColouredHairColour"
