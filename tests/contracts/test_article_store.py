"""One behaviour for the articles of the vector store in memory and on the real Milvus."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from schemas.article import Article
from schemas.candidates import Hit
from schemas.clients.milvus import MilvusStore
from schemas.clients.vector_store import (
    Store,
    StoreCounts,
    StoredArticle,
)
from schemas.config import Milvus
from schemas.errors import Unavailable
from tests.contracts.stores import NOW, PATIENCE, STRANGE_IDS, between, found_ids, stored, vectors

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_search_answers_each_vector_best_first(store: Store) -> None:
    await store.upsert_articles([stored("near", between(0, 1, 0.9)), stored("nearer", between(0, 1, 0.99))])
    first, second = await store.search_articles(vectors(0, 1), limit=2, now_ms=NOW, strong=True)
    assert [hit.article_id for hit in first] == ["nearer", "near"]
    assert [hit.article_id for hit in second] == ["near", "nearer"]
    assert [hit.similarity for hit in first] == pytest.approx([0.99, 0.9], abs=1e-3)
    assert (first[0].title, first[0].url) == ("A title", "https://news.example/nearer")
    assert first[0].published_at == NOW


async def test_search_keeps_to_the_limit(store: Store) -> None:
    await store.upsert_articles([stored(f"a{n}", between(0, n + 1, 0.5)) for n in range(8)])
    assert len(await found_ids(store, vectors(0)[0], limit=5)) == 5


async def test_an_empty_store_finds_nothing(store: Store) -> None:
    assert await store.search_articles(vectors(0, 1), limit=3, now_ms=NOW, strong=True) == [[], []]
    assert await store.newest_articles(limit=3, now_ms=NOW) == []
    assert await store.count() == StoreCounts(articles=0, user_queries=0)


async def test_no_vectors_no_answers(store: Store) -> None:
    assert await store.search_articles(vectors(), limit=3, now_ms=NOW) == []


async def test_a_later_upsert_replaces_the_article(store: Store) -> None:
    await store.upsert_articles([stored("a", vectors(0)[0], title="Old")])
    await store.upsert_articles([stored("a", vectors(1)[0], title="New")])
    hits = await store.search_articles(vectors(0), limit=5, now_ms=NOW, strong=True)
    assert [(hit.title, round(hit.similarity)) for hit in hits[0]] == [("New", 0)]
    assert (await store.count()).articles == 1


async def test_of_equal_ids_in_one_upsert_the_last_wins(store: Store) -> None:
    await store.upsert_articles([stored("a", vectors(0)[0], title="First"), stored("a", vectors(0)[0], title="Last")])
    hits = await store.search_articles(vectors(0), limit=5, now_ms=NOW, strong=True)
    assert [hit.title for hit in hits[0]] == ["Last"]


async def test_an_expired_article_is_not_found(store: Store) -> None:
    await store.upsert_articles([stored("old", vectors(0)[0], expires_at=NOW), stored("new", vectors(0)[0])])
    assert await found_ids(store, vectors(0)[0]) == ["new"]
    assert await found_ids(store, vectors(0)[0], now_ms=NOW - 1) in (["old", "new"], ["new", "old"])
    assert [hit.article_id for hit in await eventually_newest(store, 1)] == ["new"]


async def test_deleted_articles_are_gone(store: Store) -> None:
    await store.upsert_articles([stored(name, vectors(0)[0]) for name in ["keep", *STRANGE_IDS]])
    await store.delete_articles([*STRANGE_IDS, "never there"])
    assert await found_ids(store, vectors(0)[0], limit=20) == ["keep"]


async def test_newest_articles_come_latest_first_and_none_from_the_future(store: Store) -> None:
    days = [0, 40, 2, 1, -1]
    await store.upsert_articles(
        [stored(f"{day} days old", vectors(day + 1)[0], published_at=NOW - day * 86_400_000) for day in days]
    )
    newest = await eventually_newest(store, 4)
    assert [hit.article_id for hit in newest] == ["0 days old", "1 days old", "2 days old", "40 days old"]
    assert [hit.article_id for hit in await store.newest_articles(limit=2, now_ms=NOW)] == ["0 days old", "1 days old"]


async def eventually_newest(store: Store, count: int) -> list[Hit]:
    for _ in range(PATIENCE):
        newest = await store.newest_articles(limit=10, now_ms=NOW)
        if len(newest) == count:
            return newest
        await asyncio.sleep(0.1)
    raise AssertionError(f"{count} articles expected, {len(newest)} seen")


async def test_stories_are_found_by_their_title_key(store: Store) -> None:
    await store.upsert_articles(
        [
            stored("a", vectors(0)[0], title='"Big" — News!', published_at=5),
            stored("b", vectors(1)[0], title="Other news"),
            stored("c", vectors(2)[0], title="Big news", expires_at=NOW),
        ]
    )
    stories = await store.stories_titled(["big news", "o'neill \\"], now_ms=NOW)
    assert [(story.article_id, story.published_at) for story in stories] == [("a", 5)]


async def test_similar_stories_carry_their_similarity(store: Store) -> None:
    await store.upsert_articles([stored("a", between(0, 1, 0.97), published_at=7)])
    (similar,) = (await store.find_similar(vectors(0), limit=3, now_ms=NOW))[0]
    assert (similar.story.article_id, similar.story.published_at) == ("a", 7)
    assert similar.similarity == pytest.approx(0.97, abs=1e-3)


async def test_the_vectors_of_stored_articles_are_read_by_id(store: Store) -> None:
    await store.upsert_articles(
        [stored(name, between(0, 1, 0.6)) for name in STRANGE_IDS] + [stored("old", vectors(2)[0], expires_at=NOW)]
    )
    found = await store.article_vectors([*STRANGE_IDS, "old", "never there"], now_ms=NOW, strong=True)
    assert set(found) == set(STRANGE_IDS)
    assert np.allclose(found["a#1"], between(0, 1, 0.6), atol=1e-6)
    assert await store.article_vectors([], now_ms=NOW) == {}


async def test_wrong_dimensions_are_named(store: Store) -> None:
    with pytest.raises(ValueError, match=r"\(1, 3\)"):
        await store.search_articles(np.ones((1, 3), dtype=np.float32), limit=1, now_ms=NOW)


async def test_an_article_without_expiry_is_refused(store: Store) -> None:
    row = stored("a", vectors(0)[0])
    article = Article(article_id="a", title="t", url="", source="s", published_at=1)
    with pytest.raises(ValueError, match="expires_at"):
        await store.upsert_articles([StoredArticle(article=article, embed_model="axes", embedding=row.embedding)])


async def test_the_store_says_that_it_is_there(store: Store) -> None:
    await store.check()


async def test_a_large_write_is_split(store: Store) -> None:
    await store.upsert_articles([stored(f"a{n}", between(0, 1 + n % 300, 0.3)) for n in range(1_201)])
    assert (await store.count()).articles == 1_201


async def test_an_absent_milvus_is_unavailable_and_says_how_to_start_it(tmp_path: Path) -> None:
    absent = MilvusStore(Milvus(uri="http://127.0.0.1:1", timeout_seconds=0.5))
    with pytest.raises(Unavailable, match="keenstream stack up"):
        await absent.check()
    await absent.close()
