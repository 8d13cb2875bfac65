"""What every policy of an evaluation is asked: held-out readers, the news alive at the moment, the positives."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from offline.evaluate.baselines import News
from offline.evaluate.held_out import HeldOutReader
from offline.evaluate.retrieval import ExactIndex, VectorCache
from offline.training.example_set import load_articles, load_clicks, load_split
from offline.training.examples import Example, split_of
from schemas.article import Article, embedded_text
from schemas.clients.models import Embedder
from schemas.errors import UsageError

DAY_MS: Final = 86_400_000


class Task(msgspec.Struct, frozen=True):
    """What is asked of every policy."""

    news: News
    readers: list[HeldOutReader]
    validation: list[HeldOutReader]
    without_positives: int

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


def alive_at(articles: Sequence[Article], at_ms: int, fresh_days: float) -> list[Article]:
    """Published in the `fresh_days` before the moment, and not expired."""
    return [
        article
        for article in articles
        if at_ms - fresh_days * DAY_MS < article.published_at <= at_ms
        and (article.expires_at is None or article.expires_at > at_ms)
    ]


def make_task(
    examples: Path, held_out: Sequence[Example], embedder: Embedder, *, fresh_days: float, most_readers: int
) -> Task:
    """UsageError when nothing could be found by anybody."""
    at_ms = held_out[0].at_ms
    pool = alive_at(load_articles(examples), at_ms, fresh_days)
    if not pool:
        raise UsageError(f"no article is alive at the moment of the examples: raise --fresh-days ({fresh_days})")
    known = frozenset(article.article_id for article in pool)
    readers = [reader for row in held_out if (reader := _reader(row, known)).positives]
    if not readers:
        raise UsageError("no held-out reader clicked an article that was alive at the moment: raise --fresh-days")
    validation = [reader for row in load_split(examples, "validation") if (reader := _reader(row, known)).positives]
    cache = VectorCache(embedder)
    texts = [embedded_text(article) for article in pool]
    asyncio.run(cache.add(texts))
    news = News(at_ms, pool, cache, ExactIndex(pool, cache.of(texts)), load_clicks(examples))
    return Task(news, readers[: most_readers or None], validation, len(held_out) - len(readers))


def _reader(row: Example, pool: frozenset[str]) -> HeldOutReader:
    return HeldOutReader(row.user_id, row.profile, frozenset(row.clicked) & pool)
