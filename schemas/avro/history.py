"""The rule for published schemas: the newest is the struct, and each version reads and is read by the newest."""

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec

from schemas.avro.compatibility import incompatibilities
from schemas.avro.generator import Schema, schema_text
from schemas.avro.published import Published
from schemas.errors import KeenstreamError

HOW_TO_PUBLISH = "run `keenstream schemas publish` and commit what it writes"


def history_faults(record: type[msgspec.Struct], versions: Sequence[Published]) -> list[str]:
    """What is wrong with the published `versions` of `record`, oldest first; [] when nothing is."""
    if not versions:
        return [f"no schema has been published: {HOW_TO_PUBLISH}"]
    *older, newest = versions
    faults = [] if is_current(record, newest) else [f"the struct is not version {newest.version}: {HOW_TO_PUBLISH}"]
    if [row.version for row in versions] != list(range(1, len(versions) + 1)):
        faults.append("a version is missing: published schemas are kept for ever, as old records need them")
    return [*faults, *(fault for row in older for fault in _between(row, newest))]


def is_current(record: type[msgspec.Struct], newest: Published) -> bool:
    """Whether both are the same schema; a reworded `doc` is no change."""
    return bool(_without_docs(json.loads(schema_text(record))) == _without_docs(json.loads(newest.text)))


def publish(record: type[msgspec.Struct], versions: Sequence[Published], *, replace: bool) -> Published | None:
    """The version to write; None when the newest is current.

    With `replace` the newest is written anew, for a change to what has not been released. Raises KeenstreamError when
    the new version would not read, or be read by, one of the others.
    """
    if versions and is_current(record, versions[-1]):
        return None
    kept = versions[:-1] if replace else versions
    made = Published(record.__name__, len(kept) + 1, schema_text(record))
    if faults := history_faults(record, [*kept, made]):
        raise KeenstreamError(f"{made.label} cannot be published: {'; '.join(faults)}")
    return made


def write_published(folder: Path, row: Published) -> Path:
    path = folder / row.record / f"{row.version}.avsc"
    path.parent.mkdir(exist_ok=True)
    path.write_text(row.text, "utf-8")
    return path


def _between(older: Published, newest: Published) -> list[str]:
    backward = incompatibilities(older.text, newest.text)
    forward = incompatibilities(newest.text, older.text)
    return [
        *(f"{newest.label} cannot read {older.label}: {reason}" for reason in backward),
        *(f"{older.label} cannot read {newest.label}: {reason}" for reason in forward),
    ]


def _without_docs(schema: Schema) -> Schema:
    if isinstance(schema, list):
        return [_without_docs(part) for part in schema]
    if isinstance(schema, dict):
        return {name: _without_docs(value) for name, value in schema.items() if name != "doc"}
    return schema
