"""One behaviour for the vector store in memory and on the real Milvus."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from schemas.article import Article
from schemas.candidates import Hit
from schemas.clients.memory_store import MemoryStore
from schemas.clients.milvus import MilvusStore
from schemas.clients.vector_store import (
    MAX_FOUND,
    SIGNAL_SLOTS,
    STUDENT_SLOTS,
    SlotWrite,
    Store,
    StoreCounts,
    StoredArticle,
    UserQuery,
    UserQueryHit,
    Vector,
    Vectors,
    signal_write,
    student_write,
)
from schemas.config import Milvus
from schemas.errors import Unavailable
from schemas.queries import QueryList

NOW = 1_800_000_000_000
FOREVER = 10**13
PATIENCE = 600  # looks, a tenth of a second apart, at a store whose reads may be late
STRANGE_IDS = [
    "o'neill",
    'say "hi"',
    "back\\slash",
    "\\",
    "a#1",
    "日本😀",
    "100%_like",
    "' or 1==1 or id=='",
    "{}",
    "a b",
]


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(
    params=["memory", pytest.param("milvus", marks=pytest.mark.stack)], scope="module", loop_scope="module"
)
async def prepared(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    milvus = MilvusStore(Milvus(uri=request.getfixturevalue("milvus")), prefix="contract_")
    await milvus.prepare()
    yield milvus
    await milvus.drop()
    await milvus.close()


@pytest_asyncio.fixture(loop_scope="module")
async def store(prepared: Store) -> AsyncIterator[Store]:
    yield prepared
    await prepared.sweep(FOREVER + 1)


def vectors(*directions: int) -> Vectors:
    """Unit vectors along axes: equal axes have cosine 1, others 0."""
    return np.eye(384, dtype=np.float32)[list(directions)]


def between(first: int, second: int, cosine: float) -> Vector:
    axes = vectors(first, second)
    return np.asarray(cosine * axes[0] + (1 - cosine**2) ** 0.5 * axes[1], dtype=np.float32)


def stored(
    article_id: str, embedding: Vector, *, title: str = "A title", published_at: int = NOW, expires_at: int = FOREVER
) -> StoredArticle:
    article = Article(
        article_id=article_id,
        title=title,
        url=f"https://news.example/{article_id}",
        source="wire",
        published_at=published_at,
        expires_at=expires_at,
    )
    return StoredArticle(article=article, embed_model="axes", embedding=embedding)


def query_list(user_id: str, *, queries: int = 2, signals: int = 3, expires_at: int = FOREVER) -> QueryList:
    return QueryList(
        user_id=user_id,
        queries=tuple(f"query {n}" for n in range(queries)),
        signals=tuple(f"signal {n}" for n in range(signals)),
        source="student",
        profile_fingerprint="f" * 32,
        model="student",
        model_version="1",
        prompt_version="p1",
        generated_at=NOW,
        expires_at=expires_at,
    )


def writes(user_id: str, *, queries: int = 2, signals: int = 3, expires_at: int = FOREVER) -> list[SlotWrite]:
    written = query_list(user_id, queries=queries, signals=signals, expires_at=expires_at)
    return [
        student_write(written, vectors(*range(queries))),
        signal_write(written, vectors(*range(10, 10 + signals))),
    ]


async def rows(store: Store, user_id: str, *, now_ms: int = NOW) -> tuple[UserQuery, ...]:
    return await store.user_queries(user_id, now_ms=now_ms, strong=True)


async def found_ids(store: Store, embedding: Vector, *, limit: int = 10, now_ms: int = NOW) -> list[str]:
    hits = await store.search_articles(embedding[np.newaxis], limit=limit, now_ms=now_ms, strong=True)
    return [hit.article_id for hit in hits[0]]


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


async def test_a_readers_rows_come_back_whole_and_in_order(store: Store) -> None:
    await store.write_user_queries(writes("ann") + writes("bob", queries=1, signals=0))
    found = await rows(store, "ann")
    assert [(row.slot, row.source, row.query) for row in found] == [
        (0, "student", "query 0"),
        (1, "student", "query 1"),
        (5, "signals", "signal 0"),
        (6, "signals", "signal 1"),
        (7, "signals", "signal 2"),
    ]
    assert np.allclose(np.stack([row.embedding for row in found]), vectors(0, 1, 10, 11, 12))
    assert (found[0].user_id, found[0].model, found[0].model_version) == ("ann", "student", "1")
    assert (found[0].prompt_version, found[0].generated_at, found[0].expires_at) == ("p1", NOW, FOREVER)


async def test_several_readers_are_read_at_once(store: Store) -> None:
    await store.write_user_queries(writes("ann") + writes("bob", queries=1, signals=0) + writes("cid"))
    assert len(await rows(store, "ann")) == 5
    for _ in range(PATIENCE):
        found = await store.user_queries_of(["ann", "bob", "nobody"], now_ms=NOW)
        if len(found) == 2:
            break
        await asyncio.sleep(0.1)
    assert {user_id: [row.slot for row in of_reader] for user_id, of_reader in found.items()} == {
        "ann": [0, 1, 5, 6, 7],
        "bob": [0],
    }


async def found_queries(
    store: Store, embedding: Vector, *readers: str, limit: int = 10, min_similarity: float = 0.3
) -> list[UserQueryHit]:
    """What is found once it is these readers, in this order: the read is never strong."""
    started = time.monotonic()
    while True:
        (found,) = await store.search_user_queries(
            embedding[np.newaxis], limit=limit, now_ms=NOW, min_similarity=min_similarity
        )
        if [hit.user_id for hit in found] == list(readers):
            return found
        assert time.monotonic() - started < 60, f"{readers} expected, {[hit.user_id for hit in found]} found"


def one_query(user_id: str, embedding: Vector, *, expires_at: int = FOREVER) -> SlotWrite:
    return student_write(query_list(user_id, queries=1, expires_at=expires_at), embedding[np.newaxis])


async def test_an_articles_vector_finds_readers_by_their_queries_best_first(store: Store) -> None:
    await store.write_user_queries([*writes("ann"), one_query("bob", between(0, 1, 0.8))])
    first, second = await found_queries(store, vectors(0)[0], "ann", "bob")
    assert (first.query, first.source, first.generated_at) == ("query 0", "student", NOW)
    assert [first.similarity, second.similarity] == pytest.approx([1.0, 0.8], abs=1e-3)
    same_reader = await found_queries(store, between(10, 11, 0.8), "ann", "ann")
    assert [(hit.query, hit.source) for hit in same_reader] == [("signal 0", "signals"), ("signal 1", "signals")]


async def test_of_stored_queries_only_those_above_the_similarity_are_found(store: Store) -> None:
    await store.write_user_queries([one_query(f"reader-{n}", between(0, n + 1, n / 10)) for n in range(1, 10)])
    await found_queries(store, vectors(0)[0], "reader-9", "reader-8", "reader-7", min_similarity=0.65)
    await found_queries(store, vectors(0)[0], "reader-9", "reader-8", limit=2)


async def test_each_vector_finds_its_own_readers_and_none_finds_an_expired_list(store: Store) -> None:
    await store.write_user_queries(
        [one_query("old", vectors(0)[0], expires_at=NOW), one_query("ann", vectors(1)[0], expires_at=NOW + 1)]
    )
    await found_queries(store, vectors(1)[0], "ann")
    await found_queries(store, vectors(0)[0])
    first, second = await store.search_user_queries(vectors(0, 1), limit=5, now_ms=NOW, min_similarity=0.3)
    assert ([hit.user_id for hit in first], [hit.user_id for hit in second]) == ([], ["ann"])
    assert await store.search_user_queries(vectors(), limit=5, now_ms=NOW, min_similarity=0.3) == []


async def test_the_largest_answer_is_taken(store: Store) -> None:
    await store.write_user_queries([one_query("ann", vectors(0)[0])])
    await found_queries(store, vectors(0)[0], "ann", limit=MAX_FOUND)


async def test_the_vectors_of_stored_articles_are_read_by_id(store: Store) -> None:
    await store.upsert_articles(
        [stored(name, between(0, 1, 0.6)) for name in STRANGE_IDS] + [stored("old", vectors(2)[0], expires_at=NOW)]
    )
    found = await store.article_vectors([*STRANGE_IDS, "old", "never there"], now_ms=NOW, strong=True)
    assert set(found) == set(STRANGE_IDS)
    assert np.allclose(found["a#1"], between(0, 1, 0.6), atol=1e-6)
    assert await store.article_vectors([], now_ms=NOW) == {}


async def test_a_shorter_list_leaves_no_old_query_behind(store: Store) -> None:
    await store.write_user_queries(writes("ann", queries=5, signals=8))
    await store.write_user_queries(writes("ann", queries=1, signals=2))
    assert [row.slot for row in await rows(store, "ann")] == [0, 5, 6]


async def test_a_write_leaves_the_other_slots_alone(store: Store) -> None:
    await store.write_user_queries(writes("ann", queries=3, signals=3))
    await store.write_user_queries([SlotWrite(user_id="ann", slots=SIGNAL_SLOTS, rows=())])
    assert [row.slot for row in await rows(store, "ann")] == [0, 1, 2]
    await store.write_user_queries([SlotWrite(user_id="ann", slots=STUDENT_SLOTS, rows=())])
    assert await rows(store, "ann") == ()


async def test_of_two_writes_for_the_same_slots_the_last_wins(store: Store) -> None:
    await store.write_user_queries(writes("ann", queries=5, signals=0) + writes("ann", queries=1, signals=0))
    assert [row.slot for row in await rows(store, "ann")] == [0]


async def test_writing_again_changes_nothing(store: Store) -> None:
    await store.write_user_queries(writes("ann"))
    await store.write_user_queries(writes("ann"))
    assert await store.count() == StoreCounts(articles=0, user_queries=5)


async def test_any_user_id_is_its_own_reader(store: Store) -> None:
    await store.write_user_queries([write for user_id in ("a", *STRANGE_IDS) for write in writes(user_id)])
    read = await asyncio.gather(*(rows(store, user_id) for user_id in STRANGE_IDS))
    assert [{row.user_id for row in found} for found in read] == [{user_id} for user_id in STRANGE_IDS]
    assert await asyncio.gather(*map(store.delete_user, STRANGE_IDS)) == [5] * len(STRANGE_IDS)
    assert await asyncio.gather(*(rows(store, user_id) for user_id in STRANGE_IDS)) == [()] * len(STRANGE_IDS)
    assert len(await rows(store, "a")) == 5


async def test_the_longest_ids_and_texts_fit(store: Store) -> None:
    user_id, title = "😀" * 128, "ΐ" * 500  # casefold triples the letters
    await store.write_user_queries(writes(user_id))
    await store.upsert_articles([stored("文" * 128, vectors(0)[0], title=title)])
    assert len(await rows(store, user_id)) == 5
    assert await found_ids(store, vectors(0)[0]) == ["文" * 128]


async def test_expired_rows_are_not_served(store: Store) -> None:
    await store.write_user_queries(writes("ann", expires_at=NOW))
    assert await rows(store, "ann", now_ms=NOW) == ()
    assert len(await rows(store, "ann", now_ms=NOW - 1)) == 5


async def test_a_sweep_deletes_what_expired_and_nothing_else(store: Store) -> None:
    await store.upsert_articles([stored("old", vectors(0)[0], expires_at=NOW), stored("new", vectors(0)[0])])
    await store.write_user_queries(writes("ann", expires_at=NOW) + writes("bob"))
    assert await store.sweep(NOW) == 1 + 5
    assert await store.count() == StoreCounts(articles=1, user_queries=5)
    assert await store.sweep(NOW) == 0


async def test_an_erased_reader_is_gone_and_others_are_not(store: Store) -> None:
    await store.write_user_queries(writes("ann") + writes("bob"))
    assert await store.delete_user("ann") == 5
    assert await store.delete_user("ann") == 0
    assert await store.count() == StoreCounts(articles=0, user_queries=5)


async def test_one_workers_slots_are_erased_alone(store: Store) -> None:
    await store.write_user_queries(writes("ann") + writes("bob"))
    student = sum(slot.slot in STUDENT_SLOTS for slot in await store.find_user("ann"))
    assert await store.delete_user("ann", STUDENT_SLOTS) == student > 0
    assert {slot.slot in SIGNAL_SLOTS for slot in await store.find_user("ann")} == {True}
    assert await store.delete_user("ann", SIGNAL_SLOTS) == 5 - student
    assert await store.find_user("ann") == ()
    assert len(await store.find_user("bob")) == 5


async def test_a_search_for_a_reader_finds_expired_rows_too(store: Store) -> None:
    await store.write_user_queries(
        [write for user_id in ("a", *STRANGE_IDS) for write in writes(user_id, expires_at=1)]
    )
    found = await asyncio.gather(*map(store.find_user, STRANGE_IDS))
    assert [len(slots) for slots in found] == [5] * len(STRANGE_IDS)
    assert all(slot.generated_at > 0 for slots in found for slot in slots)


async def test_a_write_becomes_visible_without_strong_reads(store: Store) -> None:
    await store.write_user_queries(writes("ann"))
    started = time.monotonic()
    while not await store.user_queries("ann", now_ms=NOW):
        assert time.monotonic() - started < 60
        await asyncio.sleep(0.02)


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


async def test_the_twin_can_lag_as_milvus_does() -> None:
    now = [0]
    lagging = MemoryStore(clock=lambda: now[0], staleness_ms=200)
    await lagging.write_user_queries(writes("ann"))
    assert await lagging.user_queries("ann", now_ms=NOW) == ()
    assert len(await lagging.user_queries("ann", now_ms=NOW, strong=True)) == 5
    now[0] = 200
    assert len(await lagging.user_queries("ann", now_ms=NOW)) == 5


async def test_an_absent_milvus_is_unavailable_and_says_how_to_start_it(tmp_path: Path) -> None:
    absent = MilvusStore(Milvus(uri="http://127.0.0.1:1", timeout_seconds=0.5))
    with pytest.raises(Unavailable, match="keenstream stack up"):
        await absent.check()
    await absent.close()
