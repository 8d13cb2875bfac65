"""Results of experiments against the published JSON Schemas."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec

import schemas

FOLDER = Path(schemas.__file__ or "").parent / "published"


def as_written(report: msgspec.Struct) -> Any:
    return json.loads(msgspec.json.encode(report))


def faults(name: str, written: Any) -> list[str]:
    """Of `written` by the document `name`."""
    schema = json.loads((FOLDER / name).read_text("utf-8"))
    return [str(error) for error in jsonschema_rs.validator_for(schema).iter_errors(written)]
