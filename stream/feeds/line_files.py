"""Files of lines, gzipped or not, read from any line on."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

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


def read_lines(path: Path, start: Position = START) -> Iterator[tuple[bytes, Position]]:
    """Each line with the position behind it (bytes count unpacked). A line that is not ended yet by a line break may be
    still being written: its position is the one in front of it, so that the next run reads it again.

    Raises UsageError when the file cannot be read to its end.
    """
    with open_bytes(path) as file:
        try:
            file.seek(start.bytes)
            at = start
            while line := file.readline(MAX_LINE_BYTES):
                behind = Position(at.rows + 1, at.bytes + len(line))
                yield line, behind if line.endswith(b"\n") or len(line) == MAX_LINE_BYTES else at
                at = behind
        except (OSError, EOFError) as error:
            raise UsageError(f"{path} breaks off: {error}") from error
