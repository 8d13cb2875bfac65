import json
from typing import Any

import pytest

from schemas.avro.compatibility import incompatibilities

Schema = Any


def record(*fields: dict[str, Schema], name: str = "R", **extra: Schema) -> str:
    return json.dumps({"type": "record", "name": name, "fields": list(fields), **extra})


def of(kind: Schema, **extra: Schema) -> str:
    return record({"name": "x", "type": kind, **extra})


def enum(*symbols: str, **extra: Schema) -> Schema:
    return {"type": "enum", "name": "E", "symbols": list(symbols), **extra}


def nested(kind: Schema) -> Schema:
    return {"type": "array", "items": {"type": "record", "name": "P", "fields": [{"name": "y", "type": kind}]}}


MILLIS, MICROS = ({"type": "long", "logicalType": f"timestamp-{unit}"} for unit in ("millis", "micros"))
GOOD = {
    "the same": (of("long"), of("long")),
    "int read as long": (of("int"), of("long")),
    "long read as double": (of("long"), of("double")),
    "a field more": (record({"name": "x", "type": "long"}, {"name": "z", "type": "string"}), of("long")),
    "a field less, with a default": (record(), of("long", default=1)),
    "a renamed field with its alias": (of("long"), record({"name": "new", "type": "long", "aliases": ["x"]})),
    "a renamed record with its alias": (of("long"), record({"name": "x", "type": "long"}, name="S", aliases=["R"])),
    "another namespace": (of("long"), record({"name": "x", "type": "long"}, namespace="elsewhere")),
    "now optional": (of("long"), of(["null", "long"])),
    "branches in another order": (of(["null", "long"]), of(["long", "null"])),
    "a symbol less": (of(enum("a")), of(enum("a", "b"))),
    "a symbol more, with a default": (of(enum("a", "b")), of(enum("a", default="a"))),
    "a number that is now a time": (of("long"), of(MILLIS)),
    "inside an array": (of(nested("int")), of(nested("long"))),
}
BAD = {
    "long read as int": (of("long"), of("int"), "$.x: long cannot be read as int"),
    "double read as long": (of("double"), of("long"), "$.x: double cannot be read as long"),
    "a field less, without a default": (record(), of("long"), "$.x: the reader wants it"),
    "no longer optional": (of(["null", "long"]), of("long"), "$.x: null cannot be read as long"),
    "none of the branches": (of("string"), of(["null", "long"]), "$.x: string is none of null, long"),
    "a symbol more": (of(enum("a", "b")), of(enum("a")), "$.x: the reader does not know b"),
    "another unit": (of(MICROS), of(MILLIS), "$.x: timestamp-micros cannot be read as timestamp-millis"),
    "another record": (of("long"), record({"name": "x", "type": "long"}, name="S"), "$: R is not S"),
    "inside an array": (of(nested("string")), of(nested("long")), "$.x[].y: string cannot be read as long"),
    "an array read as its item": (of(nested("long")), of("long"), "$.x: array cannot be read as long"),
}


@pytest.mark.parametrize(("writer", "reader"), GOOD.values(), ids=GOOD.keys())
def test_what_the_specification_allows(writer: str, reader: str) -> None:
    assert incompatibilities(writer, reader) == []


@pytest.mark.parametrize(("writer", "reader", "reason"), BAD.values(), ids=BAD.keys())
def test_what_it_forbids_is_named_with_the_field(writer: str, reader: str, reason: str) -> None:
    (found,) = incompatibilities(writer, reader)
    assert found.startswith(reason)


def test_a_type_used_by_name_is_compared_like_its_definition() -> None:
    inner = {"type": "record", "name": "P", "fields": [{"name": "y", "type": "long"}]}
    first = record({"name": "a", "type": inner}, {"name": "b", "type": "P"})
    second = record({"name": "b", "type": inner}, {"name": "a", "type": "P"})
    assert incompatibilities(first, second) == [] == incompatibilities(second, first)


def test_a_type_within_itself_ends() -> None:
    node = record({"name": "next", "type": ["null", "R"]})
    assert incompatibilities(node, node) == []
