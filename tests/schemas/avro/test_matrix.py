"""Old records with new readers, new records with old readers: published versions, and versions made by Hypothesis."""

import json
import os
from io import BytesIO
from typing import Any

import fastavro
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.avro.compatibility import incompatibilities
from schemas.avro.published import Published, published
from schemas.avro.wire import HEADER_BYTES, RecordReader, RecordWriter, header, parse_writer_schema
from schemas.contracts import CONTRACTS, Contract
from schemas.errors import InvalidRecord
from tests.schemas.avro import evolutions
from tests.schemas.avro.strategies import records

HEAD = header(1)
EXAMPLES = int(os.environ.get("KEENSTREAM_MATRIX_EXAMPLES", "20"))  # of each cell; 1,000 takes minutes
BY_NAME = pytest.mark.parametrize("contract", CONTRACTS, ids=lambda row: row.name)
VERSIONS = [(contract, row) for contract in CONTRACTS for row in published(contract.name)]
EVERY_VERSION = pytest.mark.parametrize(("contract", "version"), VERSIONS, ids=[f"{row.label}" for _, row in VERSIONS])


def newest(contract: Contract) -> str:
    return published(contract.name)[-1].text


def plain(value: Any) -> Any:
    """As other software sees a record."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def write(text: str, fields: dict[str, Any]) -> bytes:
    stream = BytesIO()
    fastavro.schemaless_writer(stream, parse_writer_schema(text), fields)
    return HEAD + stream.getvalue()


def resolve(data: bytes, writer: str, reader: str) -> dict[str, Any]:
    """What software with the schema `reader` gets, by fastavro's own resolution."""
    stream = BytesIO(data[HEADER_BYTES:])
    found: dict[str, Any] = fastavro.schemaless_reader(stream, parse_writer_schema(writer), parse_writer_schema(reader))
    return found


def shared(value: Any, schema: Any, names: dict[str, Any]) -> Any:
    """`value` (plain) as a version `schema` of its type has it: without what it lacks, with defaults of what is new."""
    schema = names.get(schema, schema) if isinstance(schema, str) else schema
    if isinstance(schema, dict) and schema["type"] == "array":
        return [shared(item, schema["items"], names) for item in value]
    if not isinstance(schema, dict) or schema["type"] != "record":
        return value
    return {
        row["name"]: shared(value[row["name"]], row["type"], names) if row["name"] in value else row["default"]
        for row in schema["fields"]
    }


def named(text: str) -> tuple[Any, dict[str, Any]]:
    names: dict[str, Any] = {}
    return fastavro.parse_schema(json.loads(text), named_schemas=names), names


@EVERY_VERSION
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_every_published_version_is_read_by_the_present_code(
    contract: Contract, version: Published, data: st.DataObject
) -> None:
    record = data.draw(records(contract.record))
    old = shared(plain(record), *named(version.text))
    read = RecordReader(version.text, contract.record).read(write(version.text, old))
    assert shared(plain(read), *named(version.text)) == old


@EVERY_VERSION
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_the_present_code_is_read_by_every_published_version(
    contract: Contract, version: Published, data: st.DataObject
) -> None:
    record = data.draw(records(contract.record))
    written = RecordWriter(newest(contract), contract.record).write(HEAD, record)
    assert resolve(written, newest(contract), version.text) == shared(plain(record), *named(version.text))


@BY_NAME
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_the_present_code_reads_any_compatible_version(contract: Contract, data: st.DataObject) -> None:
    other = data.draw(evolutions.compatible(newest(contract)))
    assert incompatibilities(other, newest(contract)) == []
    record = data.draw(records(contract.record))
    sent = shared(plain(record), *named(other))
    read = RecordReader(other, contract.record).read(write(other, sent))
    expected = shared(sent, *named(newest(contract)))  # what the other version lacks has its default
    assert plain(read) == expected


@BY_NAME
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_any_compatible_version_reads_the_present_code(contract: Contract, data: st.DataObject) -> None:
    other = data.draw(evolutions.compatible(newest(contract)))
    assert incompatibilities(newest(contract), other) == []
    record = data.draw(records(contract.record))
    written = RecordWriter(newest(contract), contract.record).write(HEAD, record)
    assert resolve(written, newest(contract), other) == shared(plain(record), *named(other))


@BY_NAME
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_an_incompatible_version_is_found_before_and_at_its_first_record(
    contract: Contract, data: st.DataObject
) -> None:
    other, field = data.draw(evolutions.incompatible(newest(contract)))
    assert any(reason.startswith(f"$.{field}") for reason in incompatibilities(other, newest(contract)))
    sent = {**plain(data.draw(records(contract.record))), field: [True]}
    with pytest.raises(InvalidRecord, match=field):
        RecordReader(other, contract.record).read(write(other, sent))


@BY_NAME
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_our_reading_agrees_with_avros_resolution(contract: Contract, data: st.DataObject) -> None:
    """The present code reads by the writer's schema alone; the specification's rules give the same."""
    other = data.draw(evolutions.compatible(newest(contract)))
    written = write(other, shared(plain(data.draw(records(contract.record))), *named(other)))
    ours = RecordReader(other, contract.record).read(written)
    assert plain(ours) == resolve(written, other, newest(contract))
