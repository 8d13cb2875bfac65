"""The vector store in memory: exact cosine by numpy. For tests, and for a look at the rules without a server.

With `staleness_ms` reads that are not strong lag behind writes as they do on Milvus, by the `clock` passed in.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np

from schemas.article import title_key
from schemas.candidates import Hit
from schemas.clients.vector_store import (
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
    as_vectors,
    by_reader,
    emptied_ids,
    expiry,
    row_id,
)
from schemas.names import EMBEDDING_DIMENSIONS


class _Tables:
    """One state of the store."""

    def __init__(self) -> None:
        self.articles: dict[str, StoredArticle] = {}
        self.queries: dict[str, UserQuery] = {}


_Change = Callable[[_Tables], None]


class MemoryStore(Store):
    def __init__(self, *, clock: Callable[[], int] = lambda: 0, staleness_ms: int = 0) -> None:
        self._clock, self._staleness_ms = clock, staleness_ms
        self._written, self._visible = _Tables(), _Tables()
        self._pending: deque[tuple[int, _Change]] = deque()

    async def prepare(self) -> None:
        """Nothing to create."""

    async def check(self) -> None:
        """Always there."""

    async def close(self) -> None:
        """Nothing is open."""

    async def upsert_articles(self, articles: Sequence[StoredArticle]) -> None:
        rows = {row.article.article_id: row for row in articles}
        for row in rows.values():
            expiry(row.article)
            as_vectors(row.embedding[np.newaxis])
        self._write(lambda tables: tables.articles.update(rows))

    async def delete_articles(self, article_ids: Collection[str]) -> None:
        gone = tuple(article_ids)
        self._write(lambda tables: _drop(tables.articles, gone))

    async def search_articles(
        self, vectors: Vectors, *, limit: int, now_ms: int, strong: bool = False
    ) -> list[list[Hit]]:
        return [
            [_hit(row, similarity) for row, similarity in near]
            for near in self._nearest(vectors, limit=limit, now_ms=now_ms, strong=strong)
        ]

    async def newest_articles(self, *, limit: int, now_ms: int) -> list[Hit]:
        rows = [row for row in self._live(now_ms, strong=False) if row.article.published_at <= now_ms]
        rows.sort(key=lambda row: (-row.article.published_at, row.article.article_id))
        return [_hit(row, 0.0) for row in rows[:limit]]

    async def stories_titled(self, title_keys: Collection[str], *, now_ms: int) -> list[Story]:
        stories = map(_story, self._live(now_ms, strong=True))
        return [story for story in stories if story.title_key in title_keys]

    async def find_similar(self, vectors: Vectors, *, limit: int, now_ms: int) -> list[list[SimilarStory]]:
        return [
            [SimilarStory(story=_story(row), similarity=similarity) for row, similarity in near]
            for near in self._nearest(vectors, limit=limit, now_ms=now_ms, strong=True)
        ]

    async def article_vectors(
        self, article_ids: Collection[str], *, now_ms: int, strong: bool = False
    ) -> dict[str, Vector]:
        rows = self._live(now_ms, strong=strong)
        return {row.article.article_id: row.embedding for row in rows if row.article.article_id in article_ids}

    async def write_user_queries(self, writes: Sequence[SlotWrite]) -> None:
        last = {(write.user_id, write.slots.start): write for write in writes}.values()
        written = {row_id(row.user_id, row.slot): row for write in last for row in write.rows}
        gone = [key for write in last for key in emptied_ids(write)]

        def change(tables: _Tables) -> None:
            tables.queries.update(written)
            _drop(tables.queries, gone)

        self._write(change)

    async def user_queries(self, user_id: str, *, now_ms: int, strong: bool = False) -> tuple[UserQuery, ...]:
        return self._rows_of([user_id], now_ms, strong).get(user_id, ())

    async def user_queries_of(self, user_ids: Sequence[str], *, now_ms: int) -> dict[str, tuple[UserQuery, ...]]:
        return self._rows_of(user_ids, now_ms, strong=False)

    def _rows_of(self, user_ids: Sequence[str], now_ms: int, strong: bool) -> dict[str, tuple[UserQuery, ...]]:
        rows = self._tables(strong).queries.values()
        return by_reader(row for row in rows if row.user_id in user_ids and row.expires_at > now_ms)

    async def search_user_queries(
        self, vectors: Vectors, *, limit: int, now_ms: int, min_similarity: float
    ) -> list[list[UserQueryHit]]:
        rows = [row for row in self._tables(strong=False).queries.values() if row.expires_at > now_ms]
        found = _nearest_places(vectors, [row.embedding for row in rows], limit)
        return [
            [_query_hit(rows[at], similarity) for at, similarity in near if similarity > min_similarity]
            for near in found
        ]

    async def delete_user(self, user_id: str, slots: range = SLOTS) -> int:
        rows = self._tables(strong=True).queries.items()
        gone = [key for key, row in rows if row.user_id == user_id and row.slot in slots]
        self._write(lambda tables: _drop(tables.queries, gone))
        return len(gone)

    async def find_user(self, user_id: str) -> tuple[StoredSlot, ...]:
        rows = [row for row in self._tables(strong=True).queries.values() if row.user_id == user_id]
        return tuple(sorted(StoredSlot(slot=row.slot, generated_at=row.generated_at) for row in rows))

    async def count(self) -> StoreCounts:
        tables = self._tables(strong=True)
        return StoreCounts(articles=len(tables.articles), user_queries=len(tables.queries))

    async def sweep(self, now_ms: int) -> int:
        tables = self._tables(strong=True)
        articles = [key for key, row in tables.articles.items() if expiry(row.article) <= now_ms]
        queries = [key for key, row in tables.queries.items() if row.expires_at <= now_ms]

        def change(tables: _Tables) -> None:
            _drop(tables.articles, articles)
            _drop(tables.queries, queries)

        self._write(change)
        return len(articles) + len(queries)

    def _write(self, change: _Change) -> None:
        change(self._written)
        self._pending.append((self._clock() + self._staleness_ms, change))

    def _tables(self, strong: bool) -> _Tables:
        while self._pending and self._pending[0][0] <= self._clock():
            self._pending.popleft()[1](self._visible)
        return self._written if strong else self._visible

    def _live(self, now_ms: int, *, strong: bool) -> list[StoredArticle]:
        return [row for row in self._tables(strong).articles.values() if expiry(row.article) > now_ms]

    def _nearest(
        self, vectors: Vectors, *, limit: int, now_ms: int, strong: bool
    ) -> list[list[tuple[StoredArticle, float]]]:
        rows = self._live(now_ms, strong=strong)
        found = _nearest_places(vectors, [row.embedding for row in rows], limit)
        return [[(rows[at], similarity) for at, similarity in near] for near in found]


def _nearest_places(vectors: Vectors, stored: Sequence[Vector], limit: int) -> list[list[tuple[int, float]]]:
    """For each vector the positions of the nearest of `stored`, best first, with their cosine."""
    matrix = np.array(stored, dtype=np.float32).reshape(-1, EMBEDDING_DIMENSIONS)
    similarities = _unit(as_vectors(vectors)) @ _unit(matrix).T
    return [[(int(at), float(line[at])) for at in np.argsort(-line, kind="stable")[:limit]] for line in similarities]


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = vectors / np.maximum(lengths, 1e-12)
    return unit


def _hit(row: StoredArticle, similarity: float) -> Hit:
    article = row.article
    return Hit(article.article_id, article.title, article.url, similarity, article.published_at)


def _query_hit(row: UserQuery, similarity: float) -> UserQueryHit:
    return UserQueryHit(row.user_id, row.query, row.source, similarity, row.generated_at)


def _story(row: StoredArticle) -> Story:
    article = row.article
    return Story(article_id=article.article_id, title_key=title_key(article.title), published_at=article.published_at)


def _drop(table: dict[str, StoredArticle] | dict[str, UserQuery], keys: Iterable[str]) -> None:
    for key in keys:
        table.pop(key, None)
