"""Files of lines, gzipped or not, read from any line on."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

from schemas.errors import UsageError
from stream.feeds.rows import START, Position

GZIP_MAGIC = b"\x1f\x8b"
MAX_LINE_BYTES = 4 * 1024 * 1024


def open_bytes(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked when it is gzipped; raises UsageError when it cannot be read."""
    try:
        file = path.open("rb")
        packed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        return cast(IO[bytes], gzip.open(file)) if packed else file
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == GZIP_MAGIC


class LineRead(NamedTuple):
    data: bytes
    after: Position  # behind it; bytes count unpacked
    ended: bool  # by a line break; otherwise it may be still being written
    before: Position

    @property
    def safe(self) -> Position:
        """Where the next run goes on: a line that was not ended is read again."""
        return self.after if self.ended else self.before


def read_lines(path: Path, start: Position = START) -> Iterator[LineRead]:
    """Each line from a position on. Raises UsageError when the file cannot be read to its end."""
    with open_bytes(path) as file:
        try:
            file.seek(start.bytes)
            at = start
            while data := file.readline(MAX_LINE_BYTES):
                after = Position(at.rows + 1, at.bytes + len(data))
                yield LineRead(data, after, data.endswith(b"\n") or len(data) == MAX_LINE_BYTES, at)
                at = after
        except (OSError, EOFError) as error:
            raise UsageError(f"{path} breaks off: {error}") from error
