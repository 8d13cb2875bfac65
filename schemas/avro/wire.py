"""The Confluent wire format: a zero byte, the schema's id (4 bytes, big-endian), the record in Avro's binary encoding.

A record is read by its writer's schema alone; the struct then takes the part of the reader's schema: unknown fields are
ignored, missing ones get the struct's default, and every bound is checked. The rules are those of Avro's resolution
(a test compares the two), errors name the field, and fastavro's open faults with named types that move between versions
(fastavro#780) cannot occur.
"""

import json
import math
import struct
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, Generic, TypeVar

import fastavro
import msgspec
from fastavro.schema import SchemaParseException, UnknownType
from msgspec import inspect as kinds

from schemas.avro.generator import TIMESTAMP, Schema, timestamp_fields
from schemas.errors import InvalidRecord, WithoutConsent

Decoded = TypeVar("Decoded", bound=msgspec.Struct)
Convert = Callable[[Any], Any]

MAGIC = 0
HEADER_BYTES = 5
_ID = struct.Struct(">xI")
# what fastavro raises on bytes that are no record of the schema
_BROKEN = (EOFError, LookupError, ValueError, TypeError, OverflowError, AttributeError, MemoryError, RecursionError)


def header(schema_id: int) -> bytes:
    return _ID.pack(schema_id)


def schema_id_of(data: bytes) -> int:
    """The id in front of an Avro record; raises InvalidRecord when `data` is too short to have one."""
    if len(data) < HEADER_BYTES:
        raise InvalidRecord("a record that begins with a zero byte must go on with the 4 bytes of a schema id")
    return int(_ID.unpack_from(data)[0])


class RecordReader(Generic[Decoded]):
    """Reads records of one writer schema. Raises InvalidRecord when the schema itself is of no use for `record`."""

    def __init__(self, schema_text: str, record: type[Decoded]) -> None:
        self._schema = parse_writer_schema(schema_text)
        _check_times(json.loads(schema_text), record)
        self._record = record
        self._shape = _arrays_of(kinds.type_info(record)) or _unchanged
        self._floats = tuple(
            field.name for field in msgspec.structs.fields(record) if field.type is float or "float" in str(field.type)
        )

    def read(self, data: bytes) -> Decoded:
        """The record behind the header. Raises InvalidRecord, with the field's name where a field is at fault."""
        stream = BytesIO(data)
        stream.seek(HEADER_BYTES)
        try:
            fields = fastavro.schemaless_reader(stream, self._schema, None)
        except _BROKEN as error:
            raise InvalidRecord(f"no record of its schema: {type(error).__name__}") from error
        if stream.tell() != len(data):
            raise InvalidRecord(f"no record of its schema: {len(data) - stream.tell()} bytes are left over")
        try:
            return self._finite(msgspec.convert(self._shape(fields), self._record))
        except msgspec.ValidationError as error:
            refused = isinstance(fields, dict) and fields.get("consent") is False
            raise (WithoutConsent if refused else InvalidRecord)(str(error)) from error

    def _finite(self, record: Decoded) -> Decoded:
        """JSON has no NaN, so nothing behind this point expects one."""
        for name in self._floats:
            value = getattr(record, name)
            if value is not None and not math.isfinite(value):
                raise InvalidRecord(f"Expected a finite `float` - at `$.{name}`")
        return record


class RecordWriter(Generic[Decoded]):
    """Writes records by their newest published schema."""

    def __init__(self, schema_text: str, record: type[Decoded]) -> None:
        self._schema = parse_writer_schema(schema_text)
        self._fields_of: Convert = _plain if _arrays_of(kinds.type_info(record)) else msgspec.structs.asdict

    def write(self, header: bytes, record: Decoded) -> bytes:
        stream = BytesIO()
        stream.write(header)
        try:
            fastavro.schemaless_writer(stream, self._schema, self._fields_of(record))
        except _BROKEN as error:
            raise InvalidRecord(f"cannot be written as Avro: {type(error).__name__}") from error
        return stream.getvalue()


def parse_writer_schema(text: str) -> Schema:
    """fastavro's form of a record schema, logical types left out. Raises InvalidRecord when it cannot be used.

    Without logical types the numbers come as numbers, at a third of the time that datetime objects take.
    """
    try:
        raw = json.loads(text)
        parsed = fastavro.parse_schema(_without_logical_types(raw), named_schemas={})
    except (SchemaParseException, UnknownType, *_BROKEN) as error:
        raise InvalidRecord(f"its writer schema is no Avro schema ({type(error).__name__})") from error
    if not isinstance(parsed, dict) or parsed.get("type") != "record":
        raise InvalidRecord("its writer schema is not of a record")
    _refuse_recursion(parsed, ())
    return parsed


def _without_logical_types(schema: Schema) -> Schema:
    if isinstance(schema, list):
        return [_without_logical_types(branch) for branch in schema]
    if isinstance(schema, dict):
        return {
            name: value if name == "default" else _without_logical_types(value)
            for name, value in schema.items()
            if name != "logicalType"
        }
    return schema


def _refuse_recursion(schema: Schema, inside: tuple[str, ...]) -> None:
    """A few hundred KiB of a type that holds itself would overflow the stack."""
    if isinstance(schema, list):
        for branch in schema:
            _refuse_recursion(branch, inside)
    elif isinstance(schema, str):
        if schema in inside:
            raise InvalidRecord(f"its writer schema holds the type {schema} within itself, which is not supported")
    else:
        inner = (*inside, schema["name"]) if schema["type"] == "record" else inside
        for part in _parts(schema):
            _refuse_recursion(part, inner)


def _parts(schema: Mapping[str, Any]) -> list[Schema]:
    if schema["type"] == "record":
        return [field["type"] for field in schema["fields"]]
    return [schema[name] for name in ("items", "values") if name in schema]


def _check_times(schema: Schema, record: type[msgspec.Struct]) -> None:
    times = timestamp_fields(record)
    for field in schema["fields"]:
        for branch in field["type"] if isinstance(field["type"], list) else [field["type"]]:
            logical = branch.get("logicalType") if isinstance(branch, dict) else None
            if field["name"] in times and logical not in (None, TIMESTAMP, f"local-{TIMESTAMP}"):
                raise InvalidRecord(f"{field['name']} is written as {logical}: it must be {TIMESTAMP}")


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _arrays_of(kind: kinds.Type) -> Convert | None:
    """What makes of Avro's records the arrays that `array_like` structs are read from; None where there are none."""
    match kind:
        case kinds.VarTupleType(item):
            inner = _arrays_of(item)
            return (
                (lambda value: [inner(row) for row in value] if isinstance(value, list) else value) if inner else None
            )
        case kinds.UnionType(types):
            return next(filter(None, map(_arrays_of, types)), None)
        case kinds.StructType():
            return _struct_shape(kind)
    return None


def _struct_shape(kind: kinds.StructType) -> Convert | None:
    inner = {field.name: shape for field in kind.fields if (shape := _arrays_of(field.type))}
    if not kind.array_like:
        return (lambda value: _with_arrays(value, inner)) if inner else None

    def as_array(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        for field in kind.fields:
            if field.required and field.name not in value:
                raise InvalidRecord(f"{kind.cls.__name__} missing required field `{field.name}`")
        return [
            inner.get(field.name, _unchanged)(value[field.name])
            if field.name in value
            else msgspec.to_builtins(field.default)
            for field in kind.fields
        ]

    return as_array


def _with_arrays(value: dict[str, Any], inner: Mapping[str, Convert]) -> dict[str, Any]:
    return {name: inner[name](item) if name in inner else item for name, item in value.items()}


def _unchanged(value: Any) -> Any:
    return value
