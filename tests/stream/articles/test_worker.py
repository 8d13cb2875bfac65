"""`keenstream worker articles` as a process on the real Kafka, Triton and Milvus."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from bench._worker import Worker, worker
from schemas.article import Article, embedded_text
from schemas.clients.milvus import MilvusStore
from schemas.clients.triton import TritonEmbedder
from schemas.codec import ARTICLES
from schemas.config import Articles, Config, Kafka, Milvus, Triton
from schemas.names import Topic
from stream.producer import KafkaProducer, Outgoing
from stream.topic_reader import read_topic
from stream.topics import all_topics
from stream.transport import create_topics

pytestmark = pytest.mark.stack
NOW = time.time_ns() // 1_000_000
DAY = 86_400_000
HEADLINES = [
    "Volcano on the island erupts for the third time this year",
    "Central bank keeps interest rates where they are",
    "Museum returns stolen bronze statues after a century",
    "Cycling champion retires after a crash in the mountains",
]


@pytest.fixture(scope="module")
def config(kafka: str, milvus: str, triton: str) -> Config:
    config = Config(
        kafka=Kafka(bootstrap=kafka, session_timeout_seconds=6.0),
        milvus=Milvus(uri=milvus),
        triton=Triton(grpc_address=triton),
        articles=Articles(sweep_seconds=1.0),
    )
    create_topics(kafka, all_topics(config))
    return config


@pytest.fixture(scope="module")
def indexer(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with worker("articles", config, tmp_path_factory.mktemp("articles")) as indexer:
        yield indexer


@pytest.fixture
async def store(config: Config) -> AsyncIterator[MilvusStore]:
    store = MilvusStore(config.milvus)
    await store.prepare()
    yield store
    await store.delete_articles([f"articles-worker-{n}" for n in range(10)])
    await store.close()


def article(number: int, title: str, *, published_at: int = NOW, expires_at: int | None = None) -> Article:
    return Article(
        article_id=f"articles-worker-{number}",
        title=title,
        url=f"https://news.example/{number}",
        source="wire",
        published_at=published_at,
        expires_at=expires_at,
    )


async def publish(config: Config, *articles: Article) -> None:
    async with KafkaProducer(config.kafka.bootstrap) as producer:
        await producer.send([Outgoing(Topic.ARTICLES, a.article_id.encode(), ARTICLES.encode(a)) for a in articles])


async def nearest(config: Config, store: MilvusStore, text: str) -> str:
    """The id of the article that a reader who asks for `text` finds first."""
    embedder = TritonEmbedder(config.triton.grpc_address)
    try:
        hits = await store.search_articles(await embedder.embed([text]), limit=1, now_ms=NOW)
    finally:
        await embedder.close()
    return hits[0][0].article_id if hits[0] else ""


async def until_nearest(config: Config, store: MilvusStore, text: str, number: int, seconds: float = 60.0) -> None:
    started = time.monotonic()
    while await nearest(config, store, text) != f"articles-worker-{number}":
        assert time.monotonic() - started < seconds, "the article is not found"
        await asyncio.sleep(0.05)


async def test_published_articles_are_found_by_what_they_are_about(
    config: Config, store: MilvusStore, indexer: Worker
) -> None:
    await publish(config, *(article(number, title) for number, title in enumerate(HEADLINES)))
    await until_nearest(config, store, "lava and ash from an eruption", 0)
    await until_nearest(config, store, "monetary policy decision", 1)
    await until_nearest(config, store, "looted art goes back home", 2)


async def test_a_new_article_is_found_without_a_restart(config: Config, store: MilvusStore, indexer: Worker) -> None:
    await publish(config, article(4, "Penguins hatch in the city zoo"))
    await until_nearest(config, store, "penguin chicks at the zoo", 4)


async def test_the_same_story_again_is_not_stored_and_expired_ones_are_swept(
    config: Config, store: MilvusStore, indexer: Worker
) -> None:
    await publish(config, article(1, HEADLINES[1]))
    await until_nearest(config, store, embedded_text(article(1, HEADLINES[1])), 1)
    last = article(8, "Ferry line opens between the two harbours", published_at=NOW + 5)
    await publish(
        config,
        article(6, HEADLINES[1].upper() + "!", published_at=NOW + 5),
        article(7, "Short-lived weather warning for the coast", expires_at=time.time_ns() // 1_000_000 + 4_000),
        last,
    )
    await until_nearest(config, store, embedded_text(last), 8)
    titles = [hit.article_id for hit in await store.newest_articles(limit=100, now_ms=NOW + DAY // 2)]
    assert "articles-worker-1" in titles
    assert "articles-worker-6" not in titles
    for _ in range(300):
        stories = await store.stories_titled(["short lived weather warning for the coast"], now_ms=0)
        if not stories:
            break
        await asyncio.sleep(0.2)
    assert not stories


async def test_what_is_no_article_is_a_dead_letter(config: Config, indexer: Worker) -> None:
    broken = b'{"article_id": "articles-worker-9", "title": ""}'
    async with KafkaProducer(config.kafka.bootstrap) as producer:
        await producer.send([Outgoing(Topic.ARTICLES, b"articles-worker-9", broken)])
    for _ in range(300):
        letters = await asyncio.to_thread(lambda: list(read_topic(config.kafka.bootstrap, Topic.DEAD_LETTERS)))
        if any(letter.value == broken for letter in letters):
            return
        await asyncio.sleep(0.2)
    raise AssertionError("no dead letter")


@pytest.mark.fault
async def test_articles_published_while_triton_is_away_are_found_when_it_is_back(
    config: Config, store: MilvusStore, tmp_path: Path, indexer: Worker
) -> None:
    """A worker whose Triton does not answer holds its batch; one that reaches Triton then finds it uncommitted."""
    indexer.kill()
    away = msgspec.structs.replace(config, triton=Triton(grpc_address="127.0.0.1:1", embedder_deadline_seconds=0.5))
    await publish(config, article(5, "Glacier lake drains through the ice in one night"))
    with worker("articles", away, tmp_path) as stuck:
        for _ in range(600):
            if stuck.metric("keenstream_retries_total") > 0:
                break
            await asyncio.sleep(0.1)
        assert stuck.metric("keenstream_retries_total") > 0
        stuck.kill()
    with worker("articles", config, tmp_path):
        await until_nearest(config, store, "glacier lake drains", 5)
