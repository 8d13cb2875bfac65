"""What a reader of a source gives, whatever the source: records, or why there is none, and how far it has read."""

from typing import Literal

import msgspec

from schemas.article import Article
from schemas.event import Event


class BadLine(msgspec.Struct, frozen=True):
    """A line, row or entry that is no record; `reason` names the field where there is one."""

    number: int  # from 1
    reason: str


class Taken(msgspec.Struct, frozen=True):
    """A record to send."""

    record: Article | Event
    redated: bool = False  # its own date was missing or impossible, so it has the time of its arrival
    mended: bool = False  # its bytes were not in the encoding that they should be in


class Left(msgspec.Struct, frozen=True):
    """A sound row that is not wanted."""

    why: Literal["language", "no_news"]


Outcome = Taken | Left | BadLine


class Position(msgspec.Struct, frozen=True):
    """How far a file was read: its first `rows` rows, which are its first `bytes` bytes where rows are lines."""

    rows: int = 0
    bytes: int = 0


START = Position()


class Step(msgspec.Struct, frozen=True):
    """One row of a file: what it gives, and the position behind it."""

    outcomes: tuple[Outcome, ...]
    after: Position


class Fields(msgspec.Struct, frozen=True, kw_only=True):
    """An article as a source tells it: text may be HTML, dates are in any of the usual forms."""

    title: str = ""
    url: str = ""
    published_at: object = None  # str, number or datetime
    article_id: str = ""  # to be kept as it is
    guid: str = ""  # the publisher's own id, made unique by `source`
    summary: str = ""
    source: str = ""
    category: str = ""
    language: str = ""
    expires_at: object = None
