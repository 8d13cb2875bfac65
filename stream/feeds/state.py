"""How far a source was taken, kept in a file of its own and written after the broker has what it tells of."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from schemas.errors import UsageError
from stream.feeds.fetch import Validators
from stream.feeds.line_files import open_bytes
from stream.feeds.rows import START, Position
from stream.feeds.sending import Seen

MAX_DOCUMENTS = 1_000  # of one source: a sitemap index has many
PREFIX_BYTES = 65_536
VERSION = 1


class SourceState(msgspec.Struct, kw_only=True):
    """Of one source. A file has a position, a feed what was seen in it; `seen` and `documents` are in order of age."""

    source: str
    cluster: str = ""  # id of the Kafka cluster that has the records
    version: int = VERSION
    started_ms: int = 0  # when the file was first read: the date of articles without one
    position: Position = START
    prefix: str = ""  # fingerprint of the file's beginning, as far as it was read
    seen: dict[str, Seen] = msgspec.field(default_factory=dict)
    documents: dict[str, Validators] = msgspec.field(default_factory=dict)

    def validate(self, address: str, validators: Validators) -> None:
        """Keep what to ask for a document with, next time."""
        self.documents.pop(address, None)
        self.documents[address] = validators
        while len(self.documents) > MAX_DOCUMENTS:
            del self.documents[next(iter(self.documents))]


class StateFile:
    """The state of one source in `folder`; `variant` tells apart readings of it by other rules."""

    def __init__(self, folder: Path, source: str, variant: str = "") -> None:
        name = hashlib.blake2b(f"{source}\n{variant}".encode(), digest_size=10).hexdigest()
        self._source = source
        self._path = folder / f"{name}.json"

    def load(self) -> SourceState:
        """An empty state when there is none, or one that cannot be read: then the source is sent again, which is
        harmless."""
        try:
            state = msgspec.json.decode(self._path.read_bytes(), type=SourceState)
        except (FileNotFoundError, msgspec.DecodeError):
            return SourceState(source=self._source)
        return state if state.version == VERSION else SourceState(source=self._source)

    def save(self, state: SourceState) -> None:
        """Whole or not at all, also when the power fails."""
        part = self._path.with_suffix(".part")
        with part.open("wb") as file:
            file.write(msgspec.json.encode(state))
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """For one process at a time; raises UsageError when another one has it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UsageError(f"{self._source} is being ingested by another process") from error
            yield


def prefix_of(path: Path, position: Position) -> str:
    """Fingerprint of what was read, as far as it tells whether the file is still the same: of a file of lines the
    beginning, since lines may be added; of others, which are written once, the size and the end."""
    if position == START:
        return ""
    if position.bytes:
        with open_bytes(path) as file:
            return _digest(file.read(min(PREFIX_BYTES, position.bytes)))
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - PREFIX_BYTES))
        return _digest(size.to_bytes(8, "big") + file.read())


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=10).hexdigest()
