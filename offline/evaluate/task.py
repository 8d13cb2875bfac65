"""What every policy of an evaluation is asked: held-out readers, the news alive at the moment, the positives."""

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from offline.evaluate.baselines import News
from offline.evaluate.cleaning import cleaned_by
from offline.evaluate.held_out import HeldOutReader, pool_of
from offline.evaluate.retrieval import ExactIndex, VectorCache
from offline.training.example_set import load_articles, load_clicks, load_split
from offline.training.examples import Example, split_of
from schemas.article import embedded_text
from schemas.clients.models import Cleaner, Embedder
from schemas.errors import UsageError

DAY_MS: Final = 86_400_000


class Task(msgspec.Struct, frozen=True):
    """What is asked of every policy."""

    news: News
    readers: list[HeldOutReader]
    validation: list[HeldOutReader]
    without_positives: int
    best_of: list[HeldOutReader]  # those of `readers` on whom best-of-N is measured
    cleaned: list[HeldOutReader] = []  # `readers` as the served cleaner leaves them; none without one
    cleaner: str = ""  # its version
    dropped: float = 0.0  # share of the readers' pages and searches

    @property
    def everybody(self) -> list[HeldOutReader]:
        return [*self.readers, *self.validation]


def refuse_training_readers(examples: Sequence[Example]) -> Sequence[Example]:
    """UsageError when a reader is one that training may have seen, or when there is none."""
    if not examples:
        raise UsageError("there are no held-out readers: prepare a log of more readers")
    if trained := [row.user_id for row in examples if split_of(row.user_id) != "held_out"]:
        raise UsageError(f"{len(trained)} readers are of the training half, {trained[0]} among them: nothing is judged")
    return examples


def make_task(
    examples: Path,
    held_out: Sequence[Example],
    embedder: Embedder,
    *,
    fresh_days: float,
    most_readers: int,
    best_of_readers: int = 0,
    later_news: bool = False,
) -> Task:
    """At most so many held-out and validation readers, 0 for all; UsageError when nothing could be found by anybody.

    `later_news`: what is published in the window of the positives can be found too, by lists that were written before.
    """
    at_ms = held_out[0].at_ms
    articles = load_articles(examples)
    until_ms = held_out[0].until_ms if later_news else at_ms
    pool = pool_of(articles, at_ms, fresh_ms=fresh_days * DAY_MS, until_ms=until_ms)
    if not pool:
        raise UsageError(
            f"no article is alive at the moment of the examples: raise --fresh-days ({fresh_days}), or prepare them "
            "with the articles of that time"
        )
    known = frozenset(article.article_id for article in pool)
    readers = [reader for row in held_out if (reader := _reader(row, known)).positives]
    if not readers:
        if not any(row.clicked for row in held_out):
            raise UsageError("no held-out reader clicked an article: prepare a longer log, or one of more readers")
        raise UsageError("no held-out reader clicked an article that was alive at the moment: raise --fresh-days")
    validation = [reader for row in load_split(examples, "validation") if (reader := _reader(row, known)).positives]
    cache = VectorCache(embedder)
    texts = [embedded_text(article) for article in pool]
    asyncio.run(cache.add(texts))
    news = News(at_ms, pool, cache, ExactIndex(pool, cache.of(texts)), load_clicks(examples))
    judged, choosing = readers[: most_readers or None], validation[: most_readers or None]
    return Task(news, judged, choosing, len(held_out) - len(readers), chosen_by_hash(judged, best_of_readers))


def with_cleaner(task: Task, cleaner: Cleaner, *, latest: int) -> Task:
    """The same with every reader as the stream cleans: the latest so many pages and searches are judged."""
    found = asyncio.run(cleaned_by(cleaner, task.readers, latest=latest))
    return msgspec.structs.replace(task, cleaned=found.readers, cleaner=found.version, dropped=found.dropped)


def chosen_by_hash(readers: Sequence[HeldOutReader], most: int) -> list[HeldOutReader]:
    """At most so many, in their order, the same ones whoever else is there; 0: all."""
    ordered = sorted(readers, key=lambda row: hashlib.sha256(f"best of/{row.user_id}".encode()).digest())
    kept = {row.user_id for row in ordered[: most or None]}
    return [row for row in readers if row.user_id in kept]


def _reader(row: Example, pool: frozenset[str]) -> HeldOutReader:
    return HeldOutReader(row.user_id, row.profile, frozenset(row.clicked) & pool)
