"""A world small enough for tests: three topics, readers of two of them, a tokenizer of some hundred tokens."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from offline.training import tiny
from offline.training.material import Material, make_news, make_rank
from offline.training.news_index import TextVectors
from offline.training.proposals import TrainingReader
from offline.training.sizes import TINY, Size
from schemas.article import Article
from schemas.clients.memory_models import MemoryEmbedder
from schemas.config import Api
from schemas.profile import Signal, UserProfile
from schemas.queries import parse_queries

TOPICS = {
    "storm": ("coast", "flood", "wind", "rain", "evacuation"),
    "chess": ("opening", "grandmaster", "title", "endgame", "match"),
    "lithium": ("mine", "battery", "price", "export", "supply"),
}
SIZE: Size = TINY


def articles(per_topic: int = 12) -> list[Article]:
    """So many for each topic."""
    rng = random.Random(3)
    return [
        Article(
            article_id=f"{topic}-{number}",
            title=f"{topic.title()} {' '.join(rng.sample(words, 2))} report {number}",
            summary="",
            url=f"https://news.example/{topic}/{number}",
            source="example",
            published_at=number,
        )
        for topic, words in TOPICS.items()
        for number in range(per_topic)
    ]


def readers(count: int, start: int = 0) -> list[TrainingReader]:
    """Each follows one topic: signals of it before, clicks of it after."""
    return [_reader(number) for number in range(start, start + count)]


def _reader(number: int) -> TrainingReader:
    rng, topic = random.Random(number), list(TOPICS)[number % len(TOPICS)]
    texts = [f"{topic} {word}" for word in rng.sample(TOPICS[topic], 2)]
    user = f"reader-{number}"
    signals = tuple(Signal(at, f"{user}-{at}", text) for at, text in enumerate(texts, start=1))
    clicked = tuple(f"{topic}-{place}" for place in rng.sample(range(12), 4))
    return TrainingReader(user_id=user, profile=UserProfile(user, click=signals), clicked=clicked)


def has_queries(*, completions: Sequence[str], **_rest: Any) -> list[float | None]:
    return [float(bool(parse_queries(text))) for text in completions]


def shares_words(*, completions: Sequence[str], signals: Sequence[Sequence[str]], **_rest: Any) -> list[float | None]:
    """Share of the completion's words that stand in the reader's signals."""
    told = [set(" ".join(texts).split()) for texts in signals]
    words = [text.replace(";", " ").split() for text in completions]
    return [sum(word in ours for word in row) / max(1, len(row)) for row, ours in zip(words, told, strict=True)]


REWARDS = {"structure": has_queries, "coverage": shares_words}


def material(training: int = 24, held_out: int = 6) -> Material:
    news, embedder = articles(), MemoryEmbedder()
    return Material(
        training=readers(training),
        held_out=readers(held_out, start=1_000),
        news=make_news(news, TextVectors(embedder)),
        rank=make_rank(news, embedder, Api()),
        rewards=REWARDS,
        data_sha256="world-1",
    )


def write_tokenizer(folder: Path, vocabulary: int = 400) -> None:
    """Fitted to the world's own words."""
    texts = [article.title for article in articles()]
    texts += [f"News read: {t} {w}\nNews searches: {t} {w}; {w}" for t, words in TOPICS.items() for w in words]
    tiny.write_tokenizer(folder, texts, vocabulary)
