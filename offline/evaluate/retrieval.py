"""Candidates as the API builds them, with exact search in place of the vector store."""

from collections.abc import Collection, Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.article import Article
from schemas.candidates import CandidateSource, Hit, QueryHits, merge_candidates
from schemas.clients.models import Embedder
from schemas.names import EMBEDDING_DIMENSIONS

Vectors = NDArray[np.float32]
_SEARCHED_AT_ONCE = 256  # queries; times the articles, four bytes each


class Query(msgspec.Struct, frozen=True):
    """One query with its vote."""

    text: str
    source: CandidateSource
    weight: float = 1.0


class VectorCache:
    """Each text is embedded once."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._rows: dict[str, Vectors] = {}

    async def add(self, texts: Iterable[str]) -> None:
        missing = list(dict.fromkeys(text for text in texts if text not in self._rows))
        vectors = await self._embedder.embed(missing)
        self._rows.update(zip(missing, vectors, strict=True))

    def of(self, texts: Sequence[str]) -> Vectors:
        """One row for each text; they must have been added."""
        return (
            np.stack([self._rows[text] for text in texts]) if texts else np.empty((0, EMBEDDING_DIMENSIONS), np.float32)
        )


class ExactIndex:
    """Cosine against every article; the vectors have length one. Ties go by position."""

    def __init__(self, articles: Sequence[Article], vectors: Vectors) -> None:
        if len(articles) != len(vectors):
            raise ValueError(f"{len(articles)} articles with {len(vectors)} vectors: one for each is needed")
        self._articles, self._vectors = articles, vectors

    def search(self, queries: Vectors, k: int) -> list[list[Hit]]:
        """The best `k` articles for each query, best first."""
        return [self._best(row, k) for row in queries @ self._vectors.T]

    def _best(self, similarities: Vectors, k: int) -> list[Hit]:
        places = np.arange(len(similarities))
        if k < len(places):
            places = np.argpartition(-similarities, k)[:k]
        ordered = places[np.lexsort((places, -similarities[places]))]
        return [_hit(self._articles[at], float(similarities[at])) for at in ordered]


def _hit(article: Article, similarity: float) -> Hit:
    return Hit(article.article_id, article.title, article.url, similarity, article.published_at)


class Finder:
    """Hits of each query text, searched for once."""

    def __init__(self, index: ExactIndex, cache: VectorCache, *, depth: int) -> None:
        self._index, self._cache, self._depth = index, cache, depth
        self._hits: dict[str, list[Hit]] = {}

    async def add(self, texts: Iterable[str]) -> None:
        missing = list(dict.fromkeys(text for text in texts if text not in self._hits))
        await self._cache.add(missing)
        for start in range(0, len(missing), _SEARCHED_AT_ONCE):
            part = missing[start : start + _SEARCHED_AT_ONCE]
            self._hits.update(zip(part, self._index.search(self._cache.of(part), self._depth), strict=True))

    def candidates(
        self, queries: Sequence[Query], *, k: int, articles_per_query: int, query_quota: float, seen: Collection[str]
    ) -> list[str]:
        """Ids of the `k` candidates that these queries give; their texts must have been added."""
        lists = [
            QueryHits(query.text, query.source, query.weight, self._hits[query.text][:articles_per_query])
            for query in queries
        ]
        return [row.article_id for row in merge_candidates(lists, k=k, seen=seen, query_quota=query_quota)]
