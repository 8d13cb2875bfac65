from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from schemas.article import Article
from schemas.clients.memory_models import MemoryEmbedder
from schemas.clients.memory_store import MemoryStore
from schemas.clients.vector_store import StoredArticle
from schemas.codec import ARTICLES
from schemas.config import Articles
from schemas.errors import PermanentError, Unavailable
from schemas.names import Header, Topic
from stream import monitoring
from stream.articles.indexer import ArticleIndexer
from stream.articles.worker import sweep_once
from stream.producer import MemoryProducer
from tests.stream.doubles import Record

NOW = 1_000_000
SETTINGS = Articles(ttl_seconds=500)


class FailingEmbedder(MemoryEmbedder):
    """Away for the first `failures` calls, and never able to embed a text with `poison` in it."""

    def __init__(self, *, failures: int = 0) -> None:
        super().__init__()
        self.failures = failures

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self.failures:
            self.failures -= 1
            raise Unavailable("Triton does not answer")
        if any("poison" in text for text in texts):
            raise PermanentError("cannot embed")
        return await super().embed(texts)


class RefusingStore(MemoryStore):
    """Takes no article with `poison` in its title."""

    async def upsert_articles(self, articles: Sequence[StoredArticle]) -> None:
        if any("poison" in row.article.title for row in articles):
            raise PermanentError("row refused")
        await super().upsert_articles(articles)


def record(article_id: str, title: str = "", *, published_at: int = NOW, offset: int = 0) -> Record:
    article = Article(
        article_id=article_id,
        title=title or f"{article_id} alone {article_id}",
        url=f"https://news.example/{article_id}",
        source="wire",
        published_at=published_at,
    )
    return Record(topic=Topic.ARTICLES, offset=offset, key=article_id.encode(), value=ARTICLES.encode(article))


class Bench:
    """An indexer over twins."""

    def __init__(self, embedder: MemoryEmbedder | None = None, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.producer = MemoryProducer()
        embedder = embedder or MemoryEmbedder()
        self.indexer = ArticleIndexer(SETTINGS, embedder, self.store, self.producer, lambda: NOW)

    async def titles(self) -> list[str]:
        return sorted(hit.title for hit in await self.store.newest_articles(limit=100, now_ms=NOW + 10_000))

    def reasons(self) -> list[str]:
        return [dict(letter.headers)[Header.REASON].decode() for letter in self.producer.sent]


async def test_articles_can_be_found_by_their_text() -> None:
    bench = Bench()
    await bench.indexer.process([record("a", "rain in spain"), record("b", "markets fall")])
    vectors = await MemoryEmbedder().embed(["rain spain"])
    hits = (await bench.store.search_articles(vectors, limit=1, now_ms=NOW))[0]
    assert [(hit.article_id, hit.url) for hit in hits] == [("a", "https://news.example/a")]


async def test_a_record_that_does_not_decode_is_a_dead_letter_and_the_rest_goes_on() -> None:
    bench = Bench()
    no_title = b'{"article_id":"x","title":"","url":"","source":"s","published_at":1}'
    bad = [Record(topic=Topic.ARTICLES, offset=n, value=value) for n, value in enumerate([b"{", no_title])]
    await bench.indexer.process([*bad, record("a", "fine", offset=2)])
    assert await bench.titles() == ["fine"]
    assert len(bench.producer.sent) == 2
    assert "title" in bench.reasons()[1]


async def test_dead_letters_are_sent_before_anything_else_and_a_failure_there_is_retryable() -> None:
    bench = Bench()
    bench.producer.failures = 1
    records = [Record(topic=Topic.ARTICLES, value=b"{"), record("a")]
    with pytest.raises(Unavailable):
        await bench.indexer.process(records)
    await bench.indexer.process(records)
    assert len(bench.producer.sent) == 1
    assert len(await bench.titles()) == 1


async def test_a_later_version_replaces_the_article() -> None:
    bench = Bench()
    await bench.indexer.process([record("a", "first words")])
    await bench.indexer.process([record("a", "second words", published_at=NOW + 5)])
    assert await bench.titles() == ["second words"]


async def test_within_a_batch_the_last_version_counts() -> None:
    bench = Bench()
    await bench.indexer.process([record("a", "first words"), record("a", "second words")])
    assert await bench.titles() == ["second words"]


@pytest.mark.parametrize("first", ["early", "late"])
async def test_of_one_story_the_earlier_published_stays_in_any_order(first: str) -> None:
    bench = Bench()
    records = {"early": record("z", "Big news!"), "late": record("a", "big NEWS", published_at=NOW + 1)}
    for one in (records.pop(first), *records.values()):
        await bench.indexer.process([one])
    assert await bench.titles() == ["Big news!"]


async def test_an_update_that_becomes_another_ones_story_leaves_nothing_behind() -> None:
    bench = Bench()
    await bench.indexer.process([record("a", "big news"), record("b", "other words", published_at=NOW + 1)])
    await bench.indexer.process([record("b", "BIG NEWS", published_at=NOW + 1)])
    assert await bench.titles() == ["big news"]


async def test_an_article_that_has_expired_on_arrival_is_not_stored() -> None:
    bench = Bench()
    await bench.indexer.process([record("a", "was here")])
    await bench.indexer.process([record("a", "was here", published_at=NOW - 500_000), record("b", "stays")])
    assert await bench.titles() == ["stays"]


async def test_a_record_without_a_value_withdraws_the_article() -> None:
    bench = Bench()
    await bench.indexer.process([record("a"), record("b", "stays")])
    await bench.indexer.process([Record(topic=Topic.ARTICLES, key=b"a", value=None)])
    assert await bench.titles() == ["stays"]


async def test_a_record_with_neither_key_nor_value_is_a_dead_letter() -> None:
    bench = Bench()
    await bench.indexer.process([Record(topic=Topic.ARTICLES)])
    assert len(bench.producer.sent) == 1


async def test_a_model_that_is_away_loses_nothing() -> None:
    bench = Bench(embedder=FailingEmbedder(failures=2))
    for _ in range(2):
        with pytest.raises(Unavailable):
            await bench.indexer.process([record("a")])
        assert await bench.titles() == []
    await bench.indexer.process([record("a")])
    assert len(await bench.titles()) == 1


@pytest.mark.parametrize("bench", [Bench(embedder=FailingEmbedder()), Bench(store=RefusingStore())])
async def test_what_a_part_refuses_for_good_is_a_dead_letter_and_its_batch_goes_on(bench: Bench) -> None:
    records = [record(f"a{n}", f"plain{n} words{n}") for n in range(6)]
    records.insert(3, record("bad", "poison"))
    await bench.indexer.process(records)
    assert len(await bench.titles()) == 6
    assert bench.reasons() in (["cannot embed"], ["row refused"])


async def test_every_record_is_counted_once() -> None:
    def total() -> float:
        families = [*monitoring.ARTICLES_INDEXED.collect(), *monitoring.ARTICLES_SKIPPED.collect()]
        return sum(s.value for family in families for s in family.samples if s.name.endswith("_total"))

    before = total()
    await Bench().indexer.process(
        [record("a", "x y"), record("a", "x y"), record("b", "X Y"), record("c", published_at=1), record("d")]
    )
    assert total() - before == 5


async def test_processing_a_batch_again_changes_nothing() -> None:
    bench = Bench()
    records = [record("a", "one two"), record("b", "ONE two"), record("c", "three"), record("a", "four")]
    await bench.indexer.process(records)
    first = await bench.titles()
    await bench.indexer.process(records)
    assert await bench.titles() == first


async def test_a_sweep_that_fails_is_put_off() -> None:
    class Away(MemoryStore):
        async def sweep(self, now_ms: int) -> int:
            raise Unavailable("Milvus does not answer")

    await sweep_once(Away(), NOW)


async def test_a_sweep_counts_what_went() -> None:
    bench = Bench()
    await bench.indexer.process([record("a")])
    await sweep_once(bench.store, NOW + 10_000_000)
    assert (await bench.store.count()).articles == 0
