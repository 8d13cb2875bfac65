"""The article worker: `keenstream worker articles`."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from logging import getLogger
from pathlib import Path
from typing import Any

from schemas.article import Article
from schemas.clients.milvus import MilvusStore
from schemas.clients.triton import TritonEmbedder
from schemas.clients.vector_store import Store
from schemas.codec import Codec
from schemas.codecs import open_codecs
from schemas.config import Config
from schemas.errors import RetryableError
from schemas.names import App, Topic
from stream import monitoring
from stream.articles.indexer import STAGE, ArticleIndexer
from stream.clock import now_ms
from stream.matches.matcher import Matcher
from stream.producer import KafkaProducer
from stream.retrying import AWAY_SECONDS, until_done
from stream.topics import topics
from stream.transport import WorkerSettings, batches, check_topics, create_app, run_worker

QUIET_SECONDS = 0.02  # an article that comes alone is found, and announced, without waiting for more
_log = getLogger(__name__)


def run(config: Config, data_folder: Path) -> int:
    """Index articles until SIGINT or SIGTERM; the exit code. Raises UsageError when topics are not as they must be."""
    check_topics(config.kafka, topics(config, Topic.ARTICLES, Topic.MATCH_CANDIDATES, Topic.DEAD_LETTERS))
    codecs = open_codecs(config)
    settings = WorkerSettings(session_timeout_seconds=config.kafka.session_timeout_seconds, stall_seconds=AWAY_SECONDS)
    app = create_app(App.ARTICLES, config.kafka, data_folder=data_folder, settings=settings)
    limits = config.articles

    @app.run_agent(Topic.ARTICLES)
    async def index(stream: Any) -> None:
        async with AsyncExitStack() as parts:
            indexer = _open_indexer(config, codecs.articles, parts)
            async for batch in batches(
                stream,
                max_records=limits.batch_records,
                within_seconds=limits.batch_seconds,
                quiet_seconds=QUIET_SECONDS,
            ):
                await until_done(partial(indexer.process, batch.records), stage=STAGE)

    return run_worker(app, beside=partial(_sweep_for_ever, config))


def _open_indexer(config: Config, codec: Codec[Article], parts: AsyncExitStack) -> ArticleIndexer:
    """Clients are made inside the worker's loop; each connects when it is first used."""
    store = MilvusStore(config.milvus)
    parts.push_async_callback(store.close)
    embedder = TritonEmbedder(config.triton, deadline_seconds=config.triton.embedder_deadline_seconds)
    parts.push_async_callback(embedder.close)
    producer = KafkaProducer(config.kafka)
    parts.push_async_callback(producer.stop)
    matcher = Matcher(config.matches, store, producer)
    return ArticleIndexer(config.articles, embedder, store, producer, now_ms, codec, matcher=matcher)


async def _sweep_for_ever(config: Config) -> None:
    store = MilvusStore(config.milvus)
    try:
        while True:
            await sweep_once(store, now_ms())
            await asyncio.sleep(config.articles.sweep_seconds)
    finally:
        await store.close()


async def sweep_once(store: Store, now_ms: int) -> None:
    """Delete what expired. Nothing waits for it: when the store is away the next round does it."""
    try:
        swept = await store.sweep(now_ms)
    except RetryableError as error:
        _log.warning("sweep: put off: %s", error)
        return
    monitoring.ARTICLES_SWEPT.inc(swept)
