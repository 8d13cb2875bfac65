"""Whether records of one Avro schema can be read by another, by the resolution rules of the Avro specification (1.12).

Covers what `generator` makes: records, enums, arrays, unions, primitives. Stricter than the specification in one
place: no promotion between string and bytes.
"""

import json
from collections.abc import Iterator
from typing import Any

from fastavro import parse_schema

_PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
}
Schema = Any
Names = dict[str, Schema]


def incompatibilities(writer: str, reader: str) -> list[str]:
    """Why a reader with schema `reader` cannot read every record of `writer`, each with the field's path; [] if it can.

    Both are texts of record schemas. Raises ValueError when one is no Avro schema.
    """
    names: tuple[Names, Names] = ({}, {})
    parsed = [
        parse_schema(json.loads(text), named_schemas=known) for text, known in zip((writer, reader), names, strict=True)
    ]
    return list(_Comparison(*names).compare(parsed[0], parsed[1], "$"))


class _Comparison:
    def __init__(self, writer_names: Names, reader_names: Names) -> None:
        self._writer_names, self._reader_names = writer_names, reader_names
        self._seen: set[tuple[str, str]] = set()

    def compare(self, writer: Schema, reader: Schema, path: str) -> Iterator[str]:
        writer, reader = _resolved(writer, self._writer_names), _resolved(reader, self._reader_names)
        if isinstance(writer, list):
            for branch in writer:
                yield from self.compare(branch, reader, path)
        elif isinstance(reader, list):
            if not any(self._fits(writer, branch, path) for branch in reader):
                yield f"{path}: {_name(writer)} is none of {', '.join(_name(branch) for branch in reader)}"
        else:
            yield from self._compare_plain(writer, reader, path)

    def _fits(self, writer: Schema, branch: Schema, path: str) -> bool:
        apart = _Comparison(self._writer_names, self._reader_names)
        apart._seen |= self._seen
        return not list(apart.compare(writer, branch, path))

    def _compare_plain(self, writer: Schema, reader: Schema, path: str) -> Iterator[str]:
        kind, wanted = _kind(writer), _kind(reader)
        if kind != wanted:
            if wanted not in _PROMOTIONS.get(kind, ()):
                yield f"{path}: {_name(writer)} cannot be read as {_name(reader)}"
        elif kind == "array":
            yield from self.compare(writer["items"], reader["items"], f"{path}[]")
        elif kind == "enum":
            yield from _compare_enums(writer, reader, path)
        elif kind == "record":
            yield from self._compare_records(writer, reader, path)
        elif kind in ("map", "fixed"):
            yield f"{path}: {kind} is not compared here"
        if _logical(writer) != _logical(reader) and None not in (_logical(writer), _logical(reader)):
            yield f"{path}: {_logical(writer)} cannot be read as {_logical(reader)}"

    def _compare_records(self, writer: Schema, reader: Schema, path: str) -> Iterator[str]:
        if (writer["name"], reader["name"]) in self._seen:
            return
        self._seen.add((writer["name"], reader["name"]))
        yield from _compare_names(writer, reader, path)
        written = {field["name"]: field for field in writer["fields"]}
        for field in reader["fields"]:
            here = f"{path}.{field['name']}"
            source = next(
                (written[name] for name in (field["name"], *field.get("aliases", ())) if name in written), None
            )
            if source is not None:
                yield from self.compare(source["type"], field["type"], here)
            elif "default" not in field:
                yield f"{here}: the reader wants it, the writer does not send it, and it has no default"


def _compare_enums(writer: Schema, reader: Schema, path: str) -> Iterator[str]:
    yield from _compare_names(writer, reader, path)
    unknown = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
    if unknown and "default" not in reader:
        yield f"{path}: the reader does not know {', '.join(unknown)}"


def _compare_names(writer: Schema, reader: Schema, path: str) -> Iterator[str]:
    ours, theirs = writer["name"].rpartition(".")[2], reader["name"].rpartition(".")[2]
    if ours != theirs and not {ours, writer["name"]} & set(reader.get("aliases", ())):
        yield f"{path}: {ours} is not {theirs}"


def _resolved(schema: Schema, names: Names) -> Schema:
    return names.get(schema, schema) if isinstance(schema, str) else schema


def _kind(schema: Schema) -> str:
    return str(schema["type"]) if isinstance(schema, dict) else str(schema)


def _name(schema: Schema) -> str:
    return str(schema.get("name", schema["type"])) if isinstance(schema, dict) else str(schema)


def _logical(schema: Schema) -> str | None:
    return schema.get("logicalType") if isinstance(schema, dict) else None
