"""JSON Lines: our own articles and events, and headlines in the form of the HuffPost data set.

A broken line is returned as such, with its number, so that the caller can count it and go on.
"""

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from schemas.article import Article
from schemas.codec import ARTICLES, EVENTS
from schemas.errors import InvalidRecord, UsageError
from schemas.event import Event

Row = TypeVar("Row")


class BadLine(msgspec.Struct, frozen=True):
    """A line that is no record; `reason` names the field where there is one."""

    number: int
    reason: str


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


def read_articles(path: Path) -> Iterator[Line[Article]]:
    """Articles of a JSON Lines file, of our own form or HuffPost's; raises UsageError when `path` cannot be read."""
    return _read(path, _decode_article)


def read_events(path: Path) -> Iterator[Line[Event]]:
    """Events of a JSON Lines file; raises UsageError when `path` cannot be read."""
    return _read(path, EVENTS.decode)


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
