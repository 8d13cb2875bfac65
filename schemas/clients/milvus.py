"""The vector store on Milvus. Create it inside the running loop, one per process.

It connects at the first call, and again by itself after Milvus was away.
"""

import asyncio
import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from schemas.candidates import Hit
from schemas.clients.milvus_collections import (
    ARTICLES,
    HIT_FIELDS,
    STORY_FIELDS,
    USER_QUERIES,
    USER_QUERY_FIELDS,
    USER_QUERY_HIT_FIELDS,
    VECTOR_FIELD,
    CollectionSpec,
    any_of,
    article_row,
    differences,
    expired,
    in_slots,
    live,
    published_between,
    user_query_of,
    user_query_row,
)
from schemas.clients.milvus_connection import FILTER_KEYS, MilvusConnection, chunks
from schemas.clients.milvus_probe import probe
from schemas.clients.vector_store import (
    MAX_FOUND,
    SLOTS,
    SimilarStory,
    SlotWrite,
    Store,
    StoreCounts,
    StoredArticle,
    StoredSlot,
    Story,
    UserQuery,
    UserQueryHit,
    Vector,
    Vectors,
    by_reader,
    emptied_ids,
    row_id,
)
from schemas.config import Milvus
from schemas.errors import RetryableError, UsageError

_FIRST_WINDOW_MS = 900_000


class MilvusStore(Store):
    def __init__(self, settings: Milvus, *, prefix: str = "") -> None:
        self._milvus = MilvusConnection(settings, prefix)

    async def prepare(self) -> None:
        await asyncio.gather(self._prepare(ARTICLES), self._prepare(USER_QUERIES))
        await probe(self._milvus, secrets.token_hex(8))

    async def check(self) -> None:
        await self._milvus.query(ARTICLES, "published_at < 0", ["article_id"], limit=1)

    async def close(self) -> None:
        await self._milvus.close()

    async def drop(self) -> None:
        """Remove both collections with all that is in them."""
        await asyncio.gather(self._milvus.drop(ARTICLES), self._milvus.drop(USER_QUERIES))

    async def upsert_articles(self, articles: Sequence[StoredArticle]) -> None:
        # Milvus leaves open which of two rows with one key it keeps
        rows = {row.article.article_id: article_row(row) for row in articles}
        await self._milvus.upsert(ARTICLES, list(rows.values()))

    async def delete_articles(self, article_ids: Collection[str]) -> None:
        await self._milvus.delete(ARTICLES, article_ids)

    async def search_articles(
        self, vectors: Vectors, *, limit: int, now_ms: int, strong: bool = False
    ) -> list[list[Hit]]:
        found = await self._milvus.search(ARTICLES, vectors, live(now_ms), HIT_FIELDS, limit=limit, strong=strong)
        return [
            [Hit(key, title, url, similarity, published_at) for key, similarity, title, url, published_at in near]
            for near in found
        ]

    async def newest_articles(self, *, limit: int, now_ms: int) -> list[Hit]:
        # Milvus cannot sort: widen the window until it holds enough, then sort here
        window_ms = _FIRST_WINDOW_MS
        while window_ms < now_ms and await self._milvus.count(ARTICLES, _window(now_ms, window_ms)) < limit:
            window_ms *= 2
        rows = await self._milvus.query(ARTICLES, _window(now_ms, window_ms), HIT_FIELDS, limit=MAX_FOUND)
        rows.sort(key=lambda row: (-row["published_at"], row["article_id"]))
        return [_hit(row["article_id"], 0.0, row) for row in rows[:limit]]

    async def stories_titled(self, title_keys: Collection[str], *, now_ms: int) -> list[Story]:
        found: list[Story] = []
        for keys in chunks(sorted(title_keys), FILTER_KEYS):
            condition = f"{any_of('title_key', keys)} and {live(now_ms)}"
            rows = await self._milvus.query(ARTICLES, condition, STORY_FIELDS, strong=True)
            found += [_story(row["article_id"], row) for row in rows]
        return found

    async def find_similar(self, vectors: Vectors, *, limit: int, now_ms: int) -> list[list[SimilarStory]]:
        found = await self._milvus.search(ARTICLES, vectors, live(now_ms), STORY_FIELDS, limit=limit, strong=True)
        return [
            [
                SimilarStory(story=Story(article_id=key, title_key=title, published_at=at), similarity=similarity)
                for key, similarity, title, at in near
            ]
            for near in found
        ]

    async def article_vectors(
        self, article_ids: Collection[str], *, now_ms: int, strong: bool = False
    ) -> dict[str, Vector]:
        found: dict[str, Vector] = {}
        for keys in chunks(sorted(article_ids), FILTER_KEYS):
            condition = f"{any_of('article_id', keys)} and {live(now_ms)}"
            rows = await self._milvus.query(ARTICLES, condition, ["article_id", VECTOR_FIELD], strong=strong)
            found |= {row["article_id"]: np.array(row[VECTOR_FIELD], dtype=np.float32) for row in rows}
        return found

    async def write_user_queries(self, writes: Sequence[SlotWrite]) -> None:
        last = {(write.user_id, write.slots.start): write for write in writes}.values()
        # upsert first: between the two calls a reader has too many queries, never none
        await self._milvus.upsert(USER_QUERIES, [user_query_row(row) for write in last for row in write.rows])
        await self._milvus.delete(USER_QUERIES, [key for write in last for key in emptied_ids(write)])

    async def user_queries(self, user_id: str, *, now_ms: int, strong: bool = False) -> tuple[UserQuery, ...]:
        return (await self._rows_of([user_id], now_ms, strong)).get(user_id, ())

    async def user_queries_of(self, user_ids: Sequence[str], *, now_ms: int) -> dict[str, tuple[UserQuery, ...]]:
        return await self._rows_of(user_ids, now_ms, strong=False)

    async def _rows_of(self, user_ids: Sequence[str], now_ms: int, strong: bool) -> dict[str, tuple[UserQuery, ...]]:
        keys = [key for user_id in user_ids for key in _keys(user_id)]
        condition = f"{any_of('id', keys)} and {live(now_ms)}"
        return by_reader(
            map(user_query_of, await self._milvus.query(USER_QUERIES, condition, USER_QUERY_FIELDS, strong=strong))
        )

    async def search_user_queries(
        self, vectors: Vectors, *, limit: int, now_ms: int, min_similarity: float
    ) -> list[list[UserQueryHit]]:
        found = await self._milvus.search(
            USER_QUERIES, vectors, live(now_ms), USER_QUERY_HIT_FIELDS, limit=limit, above=min_similarity
        )
        return [
            [UserQueryHit(user_id, query, source, similarity, at) for _, similarity, user_id, query, source, at in near]
            for near in found
        ]

    async def delete_user(self, user_id: str, slots: range = SLOTS) -> int:
        # found by the user_id field, deleted by ids made here: the two routes check each other
        ours = f"{any_of('user_id', [user_id])} and {in_slots(slots)}"
        before = await self._milvus.count(USER_QUERIES, ours, strong=True)
        await self._milvus.delete(USER_QUERIES, _keys(user_id, slots))
        if left := await self._milvus.count(USER_QUERIES, ours, strong=True):
            raise RetryableError(f"{left} of {before} rows of a reader are still there after erasing: erase again")
        return before

    async def find_user(self, user_id: str) -> tuple[StoredSlot, ...]:
        either = f"{any_of('user_id', [user_id])} or {any_of('id', _keys(user_id))}"
        rows = await self._milvus.query(USER_QUERIES, either, ["slot", "generated_at"], strong=True)
        return tuple(sorted(StoredSlot(slot=row["slot"], generated_at=row["generated_at"]) for row in rows))

    async def count(self) -> StoreCounts:
        articles, queries = await asyncio.gather(
            self._milvus.count(ARTICLES, strong=True), self._milvus.count(USER_QUERIES, strong=True)
        )
        return StoreCounts(articles=articles, user_queries=queries)

    async def sweep(self, now_ms: int) -> int:
        return sum(await asyncio.gather(self._sweep(ARTICLES, now_ms), self._sweep(USER_QUERIES, now_ms)))

    async def _sweep(self, spec: CollectionSpec, now_ms: int) -> int:
        old = await self._milvus.count(spec, expired(now_ms), strong=True)
        if old:
            await self._milvus.delete_where(spec, expired(now_ms))
        return old

    async def _prepare(self, spec: CollectionSpec) -> None:
        await self._milvus.create(spec)
        if found := differences(spec, await self._milvus.describe(spec)):
            raise UsageError(
                f"the Milvus collection {spec.name} at {self._milvus.uri} is not keenstream's: {'; '.join(found)}. "
                "Set milvus.uri to another server, or drop the collection"
            )
        await self._milvus.load(spec)


def _keys(user_id: str, slots: range = SLOTS) -> list[str]:
    return [row_id(user_id, slot) for slot in slots]


def _window(now_ms: int, window_ms: int) -> str:
    return f"{published_between(max(0, now_ms - window_ms), now_ms)} and {live(now_ms)}"


def _hit(article_id: str, similarity: float, fields: Mapping[str, Any]) -> Hit:
    return Hit(article_id, fields["title"], fields["url"], similarity, fields["published_at"])


def _story(article_id: str, fields: Mapping[str, Any]) -> Story:
    return Story(article_id=article_id, title_key=fields["title_key"], published_at=fields["published_at"])
