"""JSON Schema and AsyncAPI, generated from the same structs and topic definitions that the code runs with."""

import json
from collections.abc import Callable
from typing import Any

import msgspec

from schemas.avro.published import published
from schemas.config import Config
from schemas.contracts import CONTRACTS, Contract
from schemas.names import Header, Topic
from stream.topics import topics

CONTRACT_VERSION = "1.0.0"
KAFKA_BINDING = "0.5.0"
_AVRO_FORMAT = "application/vnd.apache.avro;version=1.12.0"
_LETTER_HEADERS = (
    Header.REASON,
    Header.STAGE,
    Header.SOURCE_TOPIC,
    Header.SOURCE_PARTITION,
    Header.SOURCE_OFFSET,
    Header.SOURCE_KEY,
    Header.FAILED_AT,
)

Document = dict[str, Any]  # as it is printed


def json_schema() -> Document:
    """One document (JSON Schema 2020-12) with a definition for each record type."""
    _, definitions = _components("#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "keenstream",
        "description": "The JSON records of each topic; unknown fields are ignored.",
        "$defs": definitions,
    }


def asyncapi() -> Document:
    """An AsyncAPI 3.0 document: a channel for each topic, its key, and its messages as JSON and as Avro."""
    _, definitions = _components("#/components/schemas/{name}")
    messages = {name: message for contract in CONTRACTS for name, message in _messages(contract).items()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "keenstream",
            "version": CONTRACT_VERSION,
            "description": "Learns what each reader wants to read and keeps fresh news ready for it.",
        },
        "defaultContentType": "application/json",
        "channels": {**{row.topic: _channel(row) for row in CONTRACTS}, Topic.DEAD_LETTERS: _letters_channel()},
        "components": {"messages": {**messages, "DeadLetter": _letter()}, "schemas": definitions},
    }


def experiment_report() -> Document:
    """Of `report.json`, which `keenstream experiment analyse` writes."""
    from offline.experiments.report import REPORT_VERSION, Report

    return _result_schema(Report, "report.json", REPORT_VERSION)


def experiment_offpolicy() -> Document:
    """Of `offpolicy.json`, which `keenstream experiment offpolicy` writes."""
    from offline.experiments.offpolicy_report import OffPolicyReport
    from offline.experiments.report import REPORT_VERSION

    return _result_schema(OffPolicyReport, "offpolicy.json", REPORT_VERSION)


def _result_schema(record: type[msgspec.Struct], file: str, version: str) -> Document:
    """Every field is required: it is always written, if only as null."""
    found = msgspec.json.schema(record)
    for struct in found["$defs"].values():
        struct["required"] = list(struct["properties"])
        struct["description"] = " ".join(struct.get("description", "").split())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"keenstream experiment: {file}, version {version}",
        **found,
    }


DOCUMENTS: dict[str, Callable[[], Document]] = {
    "json-schema.json": json_schema,
    "asyncapi.json": asyncapi,
    "experiment-report.json": experiment_report,
    "experiment-offpolicy.json": experiment_offpolicy,
}


def document_text(document: Document) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _components(reference: str) -> tuple[Any, Document]:
    records = [contract.record for contract in CONTRACTS]
    return msgspec.json.schema_components(records, ref_template=reference)


def _channel(contract: Contract) -> Document:
    names = list(_messages(contract))
    return {
        "address": contract.topic,
        "description": f"Keyed by `{contract.key}`.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {"kafka": _topic_binding(contract.topic)},
    }


def _topic_binding(topic: str) -> Document:
    (spec,) = topics(Config(), topic)
    retention = {"retention.ms": int(spec.config["retention.ms"])} if "retention.ms" in spec.config else {}
    policy = ["compact" if spec.compacted else "delete"]
    return {
        "partitions": spec.partitions,
        "topicConfiguration": {"cleanup.policy": policy, **retention},
        "bindingVersion": KAFKA_BINDING,
    }


def _messages(contract: Contract) -> dict[str, Document]:
    """The record's two forms; which one is written is a setting, both are read once a schema registry is set."""
    newest = published(contract.name)[-1]
    reference = {"$ref": f"#/components/schemas/{contract.name}"}
    summary = " ".join((contract.record.__doc__ or "").split())
    return {
        contract.name: {
            "name": contract.name,
            "summary": summary,
            "contentType": "application/json",
            "payload": reference,
            "bindings": {"kafka": {"key": _key(contract), "bindingVersion": KAFKA_BINDING}},
        },
        f"{contract.name}Avro": {
            "name": f"{contract.name}Avro",
            "summary": f"The same as Avro (schema version {newest.version}) after 5 bytes: zero and the schema's id.",
            "contentType": "application/vnd.confluent.avro",
            "payload": {"schemaFormat": _AVRO_FORMAT, "schema": json.loads(newest.text)},
            "bindings": {
                "kafka": {
                    "key": _key(contract),
                    "schemaIdLocation": "payload",
                    "schemaIdPayloadEncoding": "confluent",
                    "bindingVersion": KAFKA_BINDING,
                }
            },
        },
    }


def _key(contract: Contract) -> Document:
    return {"type": "string", "description": f"The record's `{contract.key}`, UTF-8."}


def _letters_channel() -> Document:
    return {
        "address": Topic.DEAD_LETTERS,
        "description": "What can never be processed. Keyed by topic, partition and offset of its origin.",
        "messages": {"DeadLetter": {"$ref": "#/components/messages/DeadLetter"}},
        "bindings": {"kafka": _topic_binding(Topic.DEAD_LETTERS)},
    }


def _letter() -> Document:
    return {
        "name": "DeadLetter",
        "summary": "The original bytes; its headers say why, and where they come from.",
        "contentType": "application/octet-stream",
        "headers": {"type": "object", "properties": {name: {"type": "string"} for name in _LETTER_HEADERS}},
        "payload": {"type": "string", "format": "binary"},
    }
