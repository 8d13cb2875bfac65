"""The news and the readers of the API's benchmark: stored as the workers would store them, without their models."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench._load import reader_id
from schemas.article import Article, embedded_text
from schemas.clients.milvus import MilvusStore
from schemas.clients.triton import TritonEmbedder
from schemas.clients.vector_store import StoredArticle, Vectors, signal_write, student_write
from schemas.codec import LISTS
from schemas.config import Config
from schemas.names import EMBEDDING_DIMENSIONS, Topic
from schemas.queries import QueryList
from stream.feeds.jsonl import read_articles
from stream.producer import KafkaProducer, Outgoing

TOPICS = 400
QUERIES, SIGNALS = 5, 6
DAY_MS = 86_400_000
WRITE_READERS = 100

Random = np.random.Generator


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    articles: Path | None
    article_count: int
    readers: int
    rate: float
    events_rate: float
    refresh_rate: float
    seconds: float
    triton: str
    seed: int


async def prepare(config: Config, plan: Plan) -> tuple[int, Vectors]:
    """Fill the store; the number of articles, and the centres around which readers' queries lie."""
    random = np.random.default_rng(plan.seed)
    articles = _articles(plan)
    centres = _unit(random.normal(size=(TOPICS, EMBEDDING_DIMENSIONS)))
    async with open_store(config) as store, KafkaProducer(config.kafka) as producer:
        await store.prepare()
        vectors = await _vectors(articles, plan, centres, random)
        rows = [
            StoredArticle(article=article, embed_model="bench", embedding=vector)
            for article, vector in zip(articles, vectors, strict=True)
        ]
        await store.upsert_articles(rows)
        around = vectors if plan.triton else centres
        for first in range(0, plan.readers, WRITE_READERS):
            numbers = range(first, min(first + WRITE_READERS, plan.readers))
            await write_lists(store, producer, [reader_id(number) for number in numbers], around, random)
        return len(articles), around


def _articles(plan: Plan) -> list[Article]:
    now_ms = time.time_ns() // 1_000_000
    if plan.articles is None:
        given = [
            Article(
                article_id=f"a{number}",
                title=f"Headline {number} about topic {number % TOPICS} and what followed from it",
                url=f"https://news.example/{number}",
                source="generated",
                published_at=now_ms,
                summary="What was said, by whom, and what it may mean for those who were there. " * 2,
            )
            for number in range(plan.article_count)
        ]
    else:
        given = [line.row for line in read_articles(plan.articles) if isinstance(line.row, Article)]
    return [
        msgspec.structs.replace(article, published_at=now_ms - number, expires_at=now_ms + DAY_MS)
        for number, article in enumerate(given[: plan.article_count])
    ]


async def _vectors(articles: list[Article], plan: Plan, centres: Vectors, random: Random) -> Vectors:
    if not plan.triton:
        return _near(centres, random.integers(len(centres), size=len(articles)), random)
    embedder = TritonEmbedder(plan.triton, deadline_seconds=120.0)
    try:
        chunks = [articles[first : first + 256] for first in range(0, len(articles), 256)]
        return np.concatenate([await embedder.embed([embedded_text(one) for one in chunk]) for chunk in chunks])
    finally:
        await embedder.close()


def _near(centres: Vectors, chosen: NDArray[np.int64], random: Random) -> Vectors:
    noise = random.normal(size=(len(chosen), EMBEDDING_DIMENSIONS)) / EMBEDDING_DIMENSIONS**0.5
    return _unit(centres[chosen] + noise)


def _unit(vectors: NDArray[np.floating[Any]]) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


async def write_lists(
    store: MilvusStore, producer: KafkaProducer, readers: list[str], around: Vectors, random: Random
) -> None:
    """New lists for these readers, stored, then logged: each has a few topics, and queries about them."""
    now_ms = time.time_ns() // 1_000_000
    lists, writes = [], []
    for reader in readers:
        written = QueryList(
            user_id=reader,
            queries=tuple(f"query {number} of a reader" for number in range(QUERIES)),
            signals=tuple(f"signal {number} of a reader" for number in range(SIGNALS)),
            source="student",
            profile_fingerprint="",
            model="bench",
            model_version="1",
            prompt_version="1",
            generated_at=now_ms,
            expires_at=now_ms + DAY_MS,
        )
        topics = random.integers(len(around), size=3)
        vectors = _near(around, random.choice(topics, size=QUERIES + SIGNALS), random)
        writes += [student_write(written, vectors[:QUERIES]), signal_write(written, vectors[QUERIES:])]
        lists.append(written)
    await store.write_user_queries(writes)
    await producer.send([Outgoing(Topic.QUERY_LISTS, row.user_id.encode(), LISTS.encode(row)) for row in lists])


@asynccontextmanager
async def open_store(config: Config) -> AsyncIterator[MilvusStore]:
    store = MilvusStore(config.milvus)
    try:
        yield store
    finally:
        await store.close()
