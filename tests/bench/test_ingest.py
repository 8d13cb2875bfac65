from pathlib import Path

import pytest

from bench.ingest import index_in, records, send_one_by_one, write_news
from schemas.clients.memory_models import MemoryEmbedder
from schemas.clients.memory_store import MemoryStore
from schemas.codec import ARTICLES
from schemas.codecs import JSON_CODECS
from schemas.config import Articles
from stream.articles.indexer import ArticleIndexer
from stream.clock import now_ms
from stream.feeds.ingestion import Destination, IngestOptions, ingest_file
from stream.producer import MemoryProducer


async def test_both_ways_send_the_same_articles(tmp_path: Path) -> None:
    given = write_news(tmp_path, 120)
    path = tmp_path / "all.jsonl"
    path.write_bytes(b"".join(ARTICLES.encode(article) + b"\n" for article in given))
    batched, alone = (Destination(producer=MemoryProducer(), codecs=JSON_CODECS, cluster="c") for _ in range(2))
    await ingest_file(path, "jsonl", IngestOptions(folder=tmp_path / "state"), batched)
    assert await send_one_by_one(path, alone) == len(given)
    assert isinstance(batched.producer, MemoryProducer)
    assert isinstance(alone.producer, MemoryProducer)
    assert batched.producer.sent == alone.producer.sent


@pytest.mark.parametrize("batch", [1, 64])
async def test_both_ways_index_every_article(tmp_path: Path, batch: int) -> None:
    store = MemoryStore()
    indexer = ArticleIndexer(Articles(same_story_similarity=2.0), MemoryEmbedder(), store, MemoryProducer(), now_ms)
    given = write_news(tmp_path, 100)
    assert await index_in(batch, indexer, records(given)) > 0
    assert (await store.count()).articles == len({article.title for article in given})
