"""The writer schemas that have been published: `<Record>/<version>.avsc` beside this file, oldest first."""

import json
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

import msgspec
from fastavro.schema import fingerprint, to_parsing_canonical_form

_FOLDER = files(__package__)
_SUFFIX = ".avsc"


class Published(msgspec.Struct, frozen=True):
    """One version of one record's writer schema."""

    record: str
    version: int
    text: str  # as in the file

    @property
    def label(self) -> str:
        return f"{self.record}/{self.version}"

    @property
    def compact(self) -> str:
        """As it is sent to a registry."""
        return json.dumps(json.loads(self.text), separators=(",", ":"), ensure_ascii=False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of Avro's parsing canonical form, hexadecimal."""
        return str(fingerprint(to_parsing_canonical_form(json.loads(self.text)), "SHA-256"))


@cache
def published(record: str) -> tuple[Published, ...]:
    """Every version of `record`, oldest first; () when none has been published."""
    return read_published(_FOLDER, record)


def read_published(folder: Traversable, record: str) -> tuple[Published, ...]:
    """Those below `folder`."""
    place = folder / record
    if not place.is_dir():
        return ()
    found = [entry for entry in place.iterdir() if entry.name.endswith(_SUFFIX)]
    versions = [Published(record, int(entry.name.removesuffix(_SUFFIX)), entry.read_text("utf-8")) for entry in found]
    return tuple(sorted(versions, key=lambda row: row.version))
