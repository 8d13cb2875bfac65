"""Avro schemas from the msgspec structs: one generator, fields in the structs' order, definitions inline.

What the structs say with fields that end in `_at` or `_before` (UTC milliseconds) becomes `timestamp-millis`; bounds
have no place in Avro and stand in each field's `doc`, as they are checked on reading all the same.
"""

import inspect
import json
from typing import Any

import msgspec
from msgspec import NODEFAULT
from msgspec import inspect as kinds

NAMESPACE = "keenstream"
TIMESTAMP = "timestamp-millis"
_TIMES = ("_at", "_before")

Schema = Any  # a JSON document as Avro defines it: str, list or dict


def avro_schema(record: type[msgspec.Struct]) -> Schema:
    """The writer schema of `record`. Raises TypeError for a field that Avro or this generator has no type for."""
    kind = kinds.type_info(record)
    assert isinstance(kind, kinds.StructType)
    return {"type": "record", "namespace": NAMESPACE, **_record(kind, set())}


def schema_text(record: type[msgspec.Struct]) -> str:
    """The content of the record's .avsc file."""
    return json.dumps(avro_schema(record), indent=2, ensure_ascii=False) + "\n"


def timestamp_fields(record: type[msgspec.Struct]) -> frozenset[str]:
    """The fields of `record` that hold UTC milliseconds."""
    return frozenset(field.name for field in msgspec.structs.fields(record) if field.name.endswith(_TIMES))


def _record(kind: kinds.StructType, named: set[str]) -> dict[str, Schema]:
    named.add(kind.cls.__name__)
    return {
        "type": "record",
        "name": kind.cls.__name__,
        "doc": " ".join((inspect.getdoc(kind.cls) or "").split()),
        "fields": [_field(field, kind.cls.__name__, named) for field in kind.fields],
    }


def _field(field: kinds.Field, owner: str, named: set[str]) -> dict[str, Schema]:
    made: dict[str, Schema] = {"name": field.name, "type": _type(field.type, owner, field.name, named)}
    if not field.required:
        made["default"] = _default(field)
    if limits := _limits(field.type):
        made["doc"] = limits
    return made


def _type(kind: kinds.Type, owner: str, name: str, named: set[str]) -> Schema:
    match kind:
        case kinds.IntType():
            return {"type": "long", "logicalType": TIMESTAMP} if name.endswith(_TIMES) else "long"
        case kinds.BoolType():
            return "boolean"
        case kinds.FloatType():
            return "double"
        case kinds.StrType():
            return "string"
        case kinds.LiteralType(values):
            return {"type": "enum", "name": f"{owner}{name.title().replace('_', '')}", "symbols": list(values)}
        case kinds.VarTupleType(item):
            return {"type": "array", "items": _type(item, owner, name, named)}
        case kinds.UnionType(types) if len(types) == 2 and kind.includes_none:
            return ["null", _type(_other_than_none(types), owner, name, named)]
        case kinds.StructType(cls):
            return cls.__name__ if cls.__name__ in named else _record(kind, named)
    raise TypeError(f"{owner}.{name}: no Avro type for {kind}")


def _other_than_none(types: tuple[kinds.Type, ...]) -> kinds.Type:
    return next(kind for kind in types if not isinstance(kind, kinds.NoneType))


def _default(field: kinds.Field) -> Any:
    value = field.default if field.default is not NODEFAULT else field.default_factory()
    if isinstance(field.type, kinds.UnionType) and value is not None:
        raise TypeError(f"{field.name}: the default of an optional field must be None")
    return msgspec.json.decode(msgspec.json.encode(value))


def _limits(kind: kinds.Type) -> str:
    """The bounds that a reader checks, in words; empty when there are none."""
    match kind:
        case kinds.UnionType(types):
            return _limits(_other_than_none(types))
        case kinds.StrType(min_length, max_length):
            return f"{min_length or 0} to {max_length} characters" if max_length else ""
        case kinds.IntType(gt, ge, lt, le) | kinds.FloatType(gt, ge, lt, le):
            bounds = {">": gt, ">=": ge, "<": lt, "<=": le}
            return ", ".join(f"{sign} {bound:.15g}" for sign, bound in bounds.items() if bound is not None)
    return ""
