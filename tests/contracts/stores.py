"""Rows and vectors of the vector stores' tests."""

import numpy as np

from schemas.article import Article
from schemas.clients.vector_store import (
    SlotWrite,
    Store,
    StoredArticle,
    UserQuery,
    Vector,
    Vectors,
    signal_write,
    student_write,
)
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
