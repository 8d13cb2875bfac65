"""Other versions of a schema, as they may come before or after it: made by Hypothesis."""

import json
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

Schema = Any

_NEW_FIELDS: tuple[dict[str, Schema], ...] = (
    {"name": "new_text", "type": "string", "default": "none"},
    {"name": "new_number", "type": "long", "default": -1},
    {"name": "new_flag", "type": ["null", "boolean"], "default": None},
    {"name": "new_words", "type": {"type": "array", "items": "string"}, "default": []},
    {"name": "new_kind", "type": {"type": "enum", "name": "NewKind", "symbols": ["x", "y"]}, "default": "y"},
)


@st.composite
def compatible(draw: st.DrawFn, text: str) -> str:
    """A version that reads `text` and is read by it: optional fields gone, others new, all in another order."""
    schema, definitions = _apart(json.loads(text))
    for number, part in enumerate([schema, *definitions.values()]):
        optional = [row["name"] for row in part.get("fields", ()) if "default" in row]
        if part["type"] == "record":
            gone = draw(st.sets(st.sampled_from(optional))) if optional else set()
            # the enum is a named type: it may be new in one record only
            new = draw(st.lists(st.sampled_from(_NEW_FIELDS[: 5 if number == 0 else 4]), unique_by=lambda r: r["name"]))
            kept = [row for row in part["fields"] if row["name"] not in gone]
            part["fields"] = draw(st.permutations([*kept, *deepcopy(new)]))
    return json.dumps(_together(schema, definitions))


@st.composite
def incompatible(draw: st.DrawFn, text: str) -> tuple[str, str]:
    """A version of which `text` reads no record, and the name of the field that is to blame."""
    schema = json.loads(text)
    required = [row for row in schema["fields"] if "default" not in row]
    field = draw(st.sampled_from(required))
    name = str(field["name"])
    if draw(st.booleans()):
        schema["fields"].remove(field)
    else:
        field["type"] = {"type": "array", "items": "boolean"}
        field["default"] = []
    return json.dumps(schema), name


def _apart(schema: Schema) -> tuple[Schema, dict[str, Schema]]:
    """The schema with names in the place of the types that it defines, and these."""
    definitions: dict[str, Schema] = {}

    def visit(part: Schema) -> Schema:
        if isinstance(part, list):
            return [visit(branch) for branch in part]
        if not isinstance(part, dict):
            return part
        if part["type"] == "array":
            return {**part, "items": visit(part["items"])}
        if part["type"] == "record":
            part = {**part, "fields": [{**row, "type": visit(row["type"])} for row in part["fields"]]}
        if "name" in part:
            definitions[part["name"]] = part
            return part["name"]
        return part

    visit(schema)
    return definitions.pop(schema["name"]), definitions


def _together(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """Each type defined where it first occurs."""
    left = dict(definitions)

    def visit(part: Schema) -> Schema:
        if isinstance(part, list):
            return [visit(branch) for branch in part]
        if isinstance(part, str):
            return visit(left.pop(part)) if part in left else part
        if part["type"] == "array":
            return {**part, "items": visit(part["items"])}
        if part["type"] == "record":
            return {**part, "fields": [{**row, "type": visit(row["type"])} for row in part["fields"]]}
        return part

    return visit(schema)
