"""One behaviour for the readers' queries of the vector store in memory and on the real Milvus."""

import asyncio
import time

import numpy as np
import pytest

from schemas.clients.memory_store import MemoryStore
from schemas.clients.vector_store import (
    MAX_FOUND,
    SIGNAL_SLOTS,
    STUDENT_SLOTS,
    SlotWrite,
    Store,
    StoreCounts,
    UserQueryHit,
    Vector,
    student_write,
)
from tests.contracts.stores import (
    FOREVER,
    NOW,
    PATIENCE,
    STRANGE_IDS,
    between,
    found_ids,
    query_list,
    rows,
    stored,
    vectors,
    writes,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


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


async def test_the_twin_can_lag_as_milvus_does() -> None:
    now = [0]
    lagging = MemoryStore(clock=lambda: now[0], staleness_ms=200)
    await lagging.write_user_queries(writes("ann"))
    assert await lagging.user_queries("ann", now_ms=NOW) == ()
    assert len(await lagging.user_queries("ann", now_ms=NOW, strong=True)) == 5
    now[0] = 200
    assert len(await lagging.user_queries("ann", now_ms=NOW)) == 5
