"""Logs of events as files, cut into parts that a worker reads by itself: an archive, or a folder of JSON Lines.

An archive has `user-events/date=.../*.parquet` and `articles/...` (schemas/archive.py); its files are parts. A folder
as `keenstream simulate` writes it has `events.jsonl` and `articles.jsonl`; its parts are ranges of lines.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec
import pyarrow.compute as pc

from offline.simulate import ARTICLES_FILE, EVENTS_FILE
from schemas.archive import archive_files, read_archive_file, records
from schemas.article import Article
from schemas.codec import ARTICLES, EVENTS
from schemas.errors import InvalidRecord, UsageError
from schemas.event import Event
from schemas.names import Topic

RANGE_BYTES: Final = 16_000_000  # of JSON Lines in a part: about 80,000 events
MOST_BAD_SHARE: Final = 0.01  # of the lines; more is a wrong file


class LogPart(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker reads in one go: a file of an archive, or lines that begin in [first_byte, last_byte)."""

    number: int
    path: str
    format: Literal["parquet", "jsonl"]
    first_byte: int = 0
    last_byte: int = 0


class SourceFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was read, for the manifest."""

    name: str  # below the folder of the log
    bytes: int
    sha256: str


def log_parts(folder: Path) -> list[LogPart]:
    """All events of `folder`. UsageError when it is neither an archive nor a folder of JSON Lines."""
    files = event_files(folder)
    if files[0].suffix == ".parquet":
        return [LogPart(number=n, path=str(path), format="parquet") for n, path in enumerate(files)]
    size = files[0].stat().st_size
    starts = range(0, size, RANGE_BYTES)
    return [
        LogPart(
            number=n, path=str(files[0]), format="jsonl", first_byte=start, last_byte=min(size, start + RANGE_BYTES)
        )
        for n, start in enumerate(starts)
    ]


def event_files(folder: Path) -> list[Path]:
    """Those of plausible days. UsageError says what was looked for."""
    if (folder / EVENTS_FILE).is_file():
        return [folder / EVENTS_FILE]
    found = [path for path in archive_files(folder, Topic.USER_EVENTS) if path.parent.name.startswith("date=")]
    if not found:
        raise UsageError(
            f"{folder} holds no events: name an archive with {Topic.USER_EVENTS}/date=.../*.parquet, or a folder with "
            f"{EVENTS_FILE}, as `keenstream simulate` writes it"
        )
    return found


def article_files(folder: Path) -> list[Path]:
    """UsageError when there are none."""
    found = [folder / ARTICLES_FILE] if (folder / ARTICLES_FILE).is_file() else archive_files(folder, Topic.ARTICLES)
    if not found:
        raise UsageError(f"{folder} holds no articles ({ARTICLES_FILE}, or {Topic.ARTICLES}/date=.../*.parquet)")
    return found


def read_events(part: LogPart) -> Iterator[Event | None]:
    """The events of a part; None for a line that is no event. UsageError for a broken Parquet file."""
    if part.format == "parquet":
        yield from records(read_archive_file(Path(part.path), Topic.USER_EVENTS), Topic.USER_EVENTS)
        return
    for line in _lines(part):
        try:
            yield EVENTS.decode(line)
        except InvalidRecord:
            yield None


def event_times(part: LogPart) -> tuple[int, int] | None:
    """The first and the last `occurred_at` of a part; None when it holds nothing."""
    if part.format == "parquet":
        column = read_archive_file(Path(part.path), Topic.USER_EVENTS, ["occurred_at"]).column(0).cast("int64")
        found = pc.min_max(column).as_py()
        return None if found["min"] is None else (found["min"], found["max"])
    times = [time for line in _lines(part) if (time := _time_of(line)) is not None]
    return (min(times), max(times)) if times else None


def read_articles(folder: Path) -> list[Article]:
    """Each article once, by id: as it was told last."""
    found: dict[str, Article] = {}
    for path in article_files(folder):
        for article in _articles_of(path):
            found[article.article_id] = article
    return [found[article_id] for article_id in sorted(found)]


def source_file(path: Path, folder: Path) -> SourceFile:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return SourceFile(name=str(path.relative_to(folder)), bytes=path.stat().st_size, sha256=digest.hexdigest())


class _Timed(msgspec.Struct):
    occurred_at: int


_TIMES = msgspec.json.Decoder(_Timed)


def _time_of(line: bytes) -> int | None:
    try:
        return _TIMES.decode(line).occurred_at
    except msgspec.MsgspecError:
        return None


def _lines(part: LogPart) -> Iterator[bytes]:
    with open(part.path, "rb") as file:
        if part.first_byte:
            file.seek(part.first_byte - 1)
            file.readline()  # the rest of the line that the part before began
        while file.tell() < part.last_byte and (line := file.readline()):
            if line.strip():
                yield line


def _articles_of(path: Path) -> Iterator[Article]:
    if path.suffix == ".parquet":
        yield from records(read_archive_file(path, Topic.ARTICLES), Topic.ARTICLES)
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield ARTICLES.decode(line)
            except InvalidRecord as error:
                raise UsageError(f"{path}, line {number} is no article: {error}") from error
