"""The MIND data set (Wu et al., ACL 2020) and files in its form: `news.tsv` as articles, `behaviors.tsv` as clicks.

MIND has no publication dates: its articles are of the moment when the file was first read. Clicks of an impression have
its time. Those of a reader's history have none, only an order, and are the same in every line of that reader: the last
one is one minute before `history_until`, each earlier one a minute earlier. The default is the midnight at which MIND's
four weeks of histories end. Ids are made from reader, impression and article, so that a second run repeats.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from schemas.codec import EVENTS
from schemas.errors import InvalidRecord, UsageError
from schemas.event import Event
from stream.feeds.line_files import read_lines
from stream.feeds.rows import START, BadLine, Fields, Outcome, Position, Step, Taken
from stream.feeds.rules import Rules, try_article

NEWS_COLUMNS, BEHAVIOR_COLUMNS = 8, 5
HISTORY_UNTIL_MS = 1_573_257_600_000  # 2019-11-09: histories are of October 12 to November 8
MINUTE_MS = 60_000
SOURCE = "mind"
_NEWS_ID = re.compile(r"N\d+")
_SHOWN = re.compile(r"(\S+)-([01])")


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What reading behaviours needs beside the file."""

    titles: Mapping[str, str]  # by article id
    history_until_ms: int | None = HISTORY_UNTIL_MS  # None = histories are left out


def is_news(line: str) -> bool:
    cells = line.rstrip("\r\n").split("\t")
    return len(cells) == NEWS_COLUMNS and _NEWS_ID.fullmatch(cells[0]) is not None


def is_behaviors(line: str) -> bool:
    cells = line.rstrip("\r\n").split("\t")
    return len(cells) == BEHAVIOR_COLUMNS and cells[0].isdecimal() and _impression_ms(cells[2]) is not None


def read_news(path: Path, rules: Rules, start: Position = START) -> Iterator[Step]:
    """The articles of `news.tsv`, with MIND's own ids, dated `rules.now_ms`."""
    for number, line, after in _numbered(path, start):
        cells = line.split("\t")
        if len(cells) != NEWS_COLUMNS:
            yield Step((BadLine(number, f"{len(cells)} columns, MIND's news has {NEWS_COLUMNS}"),), after)
            continue
        news_id, category, _, title, abstract, url, *_ = cells
        fields = Fields(article_id=news_id, title=title, summary=abstract, url=url, source=SOURCE, category=category)
        yield Step((try_article(fields, rules, number),), after)


def read_behaviors(path: Path, reading: Reading, start: Position = START) -> Iterator[Step]:
    """The clicks of each impression, and of the history of its reader."""
    told: set[str] = set()  # readers whose history was given: it is the same in each of their lines
    for number, line, after in _numbered(path, start):
        yield Step(tuple(_line_outcomes(line, number, reading, told)), after)


def read_titles(path: Path) -> dict[str, str]:
    """Title by article id of `news.tsv`; raises UsageError when it is none."""
    rows = (line.data.decode("utf-8", "replace").split("\t", 4) for line in read_lines(path))
    titles = {row[0]: row[3].strip() for row in rows if len(row) == BEHAVIOR_COLUMNS}
    if not titles:
        raise UsageError(f"{path} is not MIND's news.tsv, which the titles of clicked articles come from")
    return titles


def _numbered(path: Path, start: Position) -> Iterator[tuple[int, str, Position]]:
    for line in read_lines(path, start):
        text = line.data.decode("utf-8", "replace").rstrip("\r\n")
        if text.strip():
            yield line.after.rows, text, line.safe


def _line_outcomes(line: str, number: int, reading: Reading, told: set[str]) -> Iterator[Outcome]:
    cells = line.split("\t")
    if len(cells) != BEHAVIOR_COLUMNS:
        yield BadLine(number, f"{len(cells)} columns, MIND's behaviors have {BEHAVIOR_COLUMNS}")
        return
    impression, user, time, history, shown = cells
    at_ms = _impression_ms(time)
    if at_ms is None:
        yield BadLine(number, "the third column is not a time like 11/15/2019 8:55:22 AM")
        return
    if reading.history_until_ms is not None and user not in told:
        told.add(user)
        read = history.split()
        for before, news_id in enumerate(reversed(read), start=1):
            when = reading.history_until_ms - before * MINUTE_MS
            yield _click(user, f"history {len(read) - before}", news_id, when, number, reading)
    for news_id, clicked in _SHOWN.findall(shown):
        if clicked == "1":
            yield _click(user, impression, news_id, at_ms, number, reading)


def _click(user: str, impression: str, news_id: str, at_ms: int, number: int, reading: Reading) -> Outcome:
    title = reading.titles.get(news_id)
    if not title:
        return BadLine(number, f"clicked article {news_id} has no title in news.tsv")
    name = "\n".join((SOURCE, user, impression, str(at_ms), news_id))
    event = Event(
        event_id=hashlib.blake2b(name.encode(), digest_size=12).hexdigest(),
        user_id=user,
        kind="click",
        text=title[:2_000],
        occurred_at=at_ms,
        article_id=news_id,
    )
    try:
        return Taken(EVENTS.decode(EVENTS.encode(event)))
    except InvalidRecord as error:
        return BadLine(number, str(error))


def _impression_ms(text: str) -> int | None:
    try:
        moment = datetime.strptime(text, "%m/%d/%Y %I:%M:%S %p").replace(tzinfo=UTC)
    except ValueError:
        return None
    return int(moment.timestamp() * 1000)
