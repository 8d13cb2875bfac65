"""JSON Lines: our own articles and events, and headlines in the form of the HuffPost data set.

A broken line is returned as such, with its number, so that the caller can count it and go on.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from schemas.article import Article
from schemas.codec import ARTICLES, EVENTS
from schemas.errors import InvalidRecord, UsageError
from schemas.event import Event
from stream.feeds.columns import Columns, choose_columns
from stream.feeds.dates import plausible
from stream.feeds.line_files import open_bytes, read_lines
from stream.feeds.rows import START, BadLine, Outcome, Position, Step, Taken
from stream.feeds.rules import Rules, to_article

__all__ = ["BadLine", "Line", "jsonl_columns", "read_articles", "read_events", "read_json_lines"]

Row = TypeVar("Row")


class Line(msgspec.Struct, Generic[Row], frozen=True):
    """A decoded line and how many bytes of the file were read with it."""

    row: Row | BadLine
    size_bytes: int


class Headline(msgspec.Struct, frozen=True):
    """A line of the HuffPost data set (Misra 2022, CC BY 4.0)."""

    link: str
    headline: str
    category: str
    short_description: str
    date: str


_headline_decoder = msgspec.json.Decoder(Headline)
_row_decoder = msgspec.json.Decoder(dict[str, Any])


def read_articles(path: Path) -> Iterator[Line[Article]]:
    """Articles of a JSON Lines file, of our own form or HuffPost's; raises UsageError when `path` cannot be read."""
    return _read(path, _decode_article)


def read_events(path: Path) -> Iterator[Line[Event]]:
    """Events of a JSON Lines file; raises UsageError when `path` cannot be read."""
    return _read(path, EVENTS.decode)


def jsonl_columns(path: Path, mapping: Mapping[str, str], *, undated: bool) -> Columns | None:
    """Which keys hold what, by the first line; None for our own articles and for HuffPost's form.

    Raises UsageError naming the file and the key that it lacks.
    """
    with open_bytes(path) as file:
        first = next((line for line in file if line.strip()), b"")
    try:
        keys = list(_row_decoder.decode(first)) if first else []
    except msgspec.DecodeError as error:
        raise UsageError(f"{path}: the first line is no JSON object: {error}") from error
    if not mapping and (not keys or "article_id" in keys or set(Headline.__struct_fields__) <= set(keys)):
        return None
    return choose_columns(keys, mapping, source=str(path), undated=undated)


def read_json_lines(path: Path, columns: Columns | None, rules: Rules, start: Position = START) -> Iterator[Step]:
    """Articles of a JSON Lines file; without `columns` in our own or HuffPost's form."""
    for line in read_lines(path, start):
        if line.data.strip():
            outcome = _outcome(line.data, columns, rules, line.after.rows)
            yield Step((outcome,), line.safe if isinstance(outcome, BadLine) else line.after)


def _outcome(data: bytes, columns: Columns | None, rules: Rules, number: int) -> Outcome:
    try:
        if columns is None:
            return _dated(_decode_article(data), rules)
        return to_article(columns.fields(_row_decoder.decode(data).get), rules)
    except (InvalidRecord, msgspec.DecodeError, UnicodeDecodeError) as error:
        return BadLine(number, str(error))


def _dated(article: Article, rules: Rules) -> Taken:
    if plausible(article.published_at, rules.now_ms):
        return Taken(article)
    if rules.undated == "refuse":
        raise InvalidRecord("published_at: before 1990 or in the future")
    return Taken(msgspec.structs.replace(article, published_at=rules.arrival_ms), redated=True)


def _read(path: Path, decode: Callable[[bytes], Row]) -> Iterator[Line[Row]]:
    try:
        with path.open("rb") as lines:
            for number, data in enumerate(lines, start=1):
                if data.strip():
                    yield Line(_decoded(data, number, decode), len(data))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _decoded(data: bytes, number: int, decode: Callable[[bytes], Row]) -> Row | BadLine:
    try:
        return decode(data)
    except InvalidRecord as error:
        return BadLine(number, str(error))


def _decode_article(data: bytes) -> Article:
    if b'"headline"' in data and b'"article_id"' not in data:
        return _from_headline(data)
    return ARTICLES.decode(data)


def _from_headline(data: bytes) -> Article:
    try:
        row = _headline_decoder.decode(data)
        published = datetime.strptime(row.date, "%Y-%m-%d").replace(tzinfo=UTC)
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidRecord(str(error)) from error
    article = Article(
        article_id=hashlib.blake2b(row.link.encode(), digest_size=12).hexdigest(),
        title=row.headline.strip(),
        summary=row.short_description.strip(),
        url=row.link,
        source="huffpost",
        category=row.category,
        published_at=int(published.timestamp() * 1000),
    )
    return ARTICLES.decode(ARTICLES.encode(article))  # the contract's bounds hold for every source
