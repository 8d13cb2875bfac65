import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import schemas
from keenstream.contract_documents import DOCUMENTS, asyncapi, document_text, json_schema
from schemas.config import Config
from schemas.contracts import CONTRACTS
from schemas.names import Header, Topic
from stream.topics import all_topics

FOLDER = Path(schemas.__file__ or "").parent / "published"


def references(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        yield from (value for name, value in document.items() if name == "$ref")
        document = list(document.values())
    if isinstance(document, list):
        for part in document:
            yield from references(part)


def resolve(document: Any, reference: str) -> Any:
    for step in reference.removeprefix("#/").split("/"):
        document = document[step.replace("~1", "/")]
    return document


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_published_documents_are_up_to_date(name: str) -> None:
    """When this fails a contract has changed: run `keenstream schemas publish` and commit what it writes."""
    assert (FOLDER / name).read_text("utf-8") == document_text(DOCUMENTS[name]())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_reference_leads_somewhere(name: str) -> None:
    document = DOCUMENTS[name]()
    found = set(references(document))
    assert found
    for reference in found:
        assert resolve(document, reference)


def test_the_json_schema_has_the_bounds_that_decoding_checks() -> None:
    event = json_schema()["$defs"]["Event"]
    assert event["required"] == ["event_id", "user_id", "kind", "text", "occurred_at"]
    assert event["properties"]["text"] == {"type": "string", "minLength": 1, "maxLength": 2_000}
    assert set(json_schema()["$defs"]) >= {contract.name for contract in CONTRACTS}


def test_every_keyed_topic_is_a_channel_with_its_key_and_both_forms() -> None:
    document = asyncapi()
    assert set(document["channels"]) == {contract.topic for contract in CONTRACTS} | {Topic.DEAD_LETTERS}
    assert set(document["channels"]) <= {spec.name for spec in all_topics(Config())}
    for contract in CONTRACTS:
        channel = document["channels"][contract.topic]
        assert set(channel["messages"]) == {contract.name, f"{contract.name}Avro"}
        message = document["components"]["messages"][contract.name]
        assert contract.key in message["bindings"]["kafka"]["key"]["description"]
        assert contract.key in {field.name for field in msgspec.structs.fields(contract.record)}


def test_dead_letters_have_their_headers() -> None:
    headers = asyncapi()["components"]["messages"]["DeadLetter"]["headers"]["properties"]
    assert {Header.REASON, Header.SOURCE_TOPIC, Header.SOURCE_OFFSET} <= set(headers)


def test_the_avro_payload_is_the_newest_published_schema() -> None:
    payload = asyncapi()["components"]["messages"]["EventAvro"]["payload"]
    newest = max((FOLDER.parent / "avro" / "Event").glob("*.avsc"), key=lambda path: int(path.stem))
    assert payload["schema"] == json.loads(newest.read_text("utf-8"))
