"""Logs in other forms than ours, turned into ours before a job sees them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from schemas.errors import UsageError

NEWS, BEHAVIORS = "news.tsv", "behaviors.tsv"
MIND_LACKS = (
    "MIND has no pages, no searches and no dates of articles: profiles hold clicks alone, and an article is taken to "
    "appear with its first click"
)


def is_mind(folder: Path) -> bool:
    return (folder / BEHAVIORS).is_file()


@contextmanager
def readable_log(folder: Path) -> Iterator[Path]:
    """`folder` itself, or for MIND's files a folder of JSON Lines with the same clicks that goes with the block."""
    if not is_mind(folder):
        yield folder
        return
    if not (folder / NEWS).is_file():
        raise UsageError(f"{folder} has {BEHAVIORS} and no {NEWS}: both are needed")
    with TemporaryDirectory(prefix="keenstream-mind-") as scratch:
        convert_mind(folder, Path(scratch))
        yield Path(scratch)


def convert_mind(folder: Path, out: Path) -> None:
    """Clicks as events, news as articles.

    What MIND lacks: pages and searches, and the dates of articles, which here are those of the first click or, for an
    article that nobody clicked, of the first click of all. Histories keep only their order (stream/feeds/mind.py).
    """
    from msgspec.structs import replace

    from offline.simulate import ARTICLES_FILE, EVENTS_FILE
    from schemas.article import Article
    from schemas.codec import ARTICLES, EVENTS
    from schemas.event import Event
    from stream.feeds.mind import Reading, read_behaviors, read_news, read_titles
    from stream.feeds.rows import Taken
    from stream.feeds.rules import Rules

    first_click: dict[str, int] = {}
    with (out / EVENTS_FILE).open("wb") as file:
        for step in read_behaviors(folder / BEHAVIORS, Reading(titles=read_titles(folder / NEWS))):
            for row in step.outcomes:
                if isinstance(row, Taken) and isinstance(row.record, Event):
                    event = row.record
                    known = first_click.get(event.article_id or "", event.occurred_at)
                    first_click[event.article_id or ""] = min(known, event.occurred_at)
                    file.write(EVENTS.encode(event) + b"\n")
    if not first_click:
        raise UsageError(f"{folder / BEHAVIORS} holds no clicks")
    start = min(first_click.values())
    with (out / ARTICLES_FILE).open("wb") as file:
        for step in read_news(folder / NEWS, Rules(now_ms=start)):
            for row in step.outcomes:
                if isinstance(row, Taken) and isinstance(row.record, Article):
                    article = row.record
                    dated = replace(article, published_at=first_click.get(article.article_id, start))
                    file.write(ARTICLES.encode(dated) + b"\n")
