"""What Milvus does wrong, and what the adapter makes of it: partition keys, restarts, refused rows."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from pymilvus import AsyncMilvusClient

from keenstream.stack.milvus import milvus_server
from keenstream.stack.ports import free_port
from schemas.article import Article
from schemas.clients.milvus import MilvusStore
from schemas.clients.milvus_collections import USER_QUERIES, schema_of
from schemas.clients.milvus_connection import MilvusConnection
from schemas.clients.milvus_probe import probe
from schemas.clients.vector_store import StoredArticle
from schemas.config import Milvus
from schemas.errors import PermanentError, RetryableError, UsageError

pytestmark = pytest.mark.stack
PREFIX = "faults_"
FOREVER = 10**13


@pytest.fixture
async def with_partition_key(milvus: str) -> AsyncIterator[str]:
    """Our collection as it must not be: with the reader as its partition key."""
    client = AsyncMilvusClient(milvus, timeout=30, dedicated=True)
    schema = schema_of(USER_QUERIES)
    next(field for field in schema.fields if field.name == "user_id").is_partition_key = True
    index = client.prepare_index_params()
    index.add_index("embedding", **USER_QUERIES.index)
    await client.create_collection(PREFIX + USER_QUERIES.name, schema=schema, index_params=index)
    yield milvus
    await client.drop_collection(PREFIX + USER_QUERIES.name)
    await client.close()


async def test_a_collection_with_a_partition_key_is_refused(with_partition_key: str) -> None:
    store = MilvusStore(Milvus(uri=with_partition_key), prefix=PREFIX)
    with pytest.raises(UsageError, match="partition key"):
        await store.prepare()
    await store.close()


async def test_the_probe_sees_that_partition_keys_lose_rows(with_partition_key: str) -> None:
    connection = MilvusConnection(Milvus(uri=with_partition_key), PREFIX)
    with pytest.raises(UsageError, match="cannot be trusted"):
        await probe(connection, "test")
    await connection.close()


async def test_a_row_that_milvus_refuses_is_permanent_and_not_logged(
    milvus: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = MilvusStore(Milvus(uri=milvus), prefix="refused_")
    await store.prepare()
    with caplog.at_level(logging.DEBUG), pytest.raises(PermanentError) as refused:
        await store.upsert_articles([stored("a" * 600, "secret words")])
    assert "secret" not in caplog.text + str(refused.value)
    await store.drop()
    await store.close()


@pytest.mark.fault
async def test_the_store_comes_back_after_milvus_was_killed(tmp_path: Path) -> None:
    port = free_port()
    store = MilvusStore(Milvus(uri=f"http://127.0.0.1:{port}", timeout_seconds=2.0))
    with milvus_server(tmp_path, port):
        await store.prepare()
        await store.upsert_articles([stored("a", "kept")])
        assert (await store.count()).articles == 1
    with pytest.raises(RetryableError):
        await store.count()
    server = milvus_server(tmp_path, port)
    starting = asyncio.get_running_loop().run_in_executor(None, server.__enter__)
    try:
        while not starting.done():  # calls during the start fail within their deadline and harm nothing
            started = time.monotonic()
            await asyncio.gather(*(store.check() for _ in range(3)), return_exceptions=True)
            assert time.monotonic() - started < 20
            await asyncio.sleep(0.2)
        await starting
        assert await counted(store) == 1
    finally:
        await asyncio.get_running_loop().run_in_executor(None, server.__exit__, None, None, None)
        await store.close()


async def counted(store: MilvusStore) -> int:
    """Articles as soon as the store answers: loading goes on for a while after the start."""
    for _ in range(180):
        try:
            return (await store.count()).articles
        except RetryableError:
            await asyncio.sleep(0.5)
    raise AssertionError("the store did not come back")


def stored(article_id: str, title: str) -> StoredArticle:
    article = Article(article_id=article_id, title=title, url="", source="s", published_at=1, expires_at=FOREVER)
    return StoredArticle(article=article, embed_model="axes", embedding=np.eye(1, 384, dtype=np.float32)[0])
