"""The news of one moment as rewards see it: vectors of texts, each computed once, and what a query finds.

Pickled, an index keeps its articles and forgets its caches.
"""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.article import Article, embedded_text
from schemas.clients.models import Embedder
from schemas.errors import UsageError
from schemas.names import EMBEDDING_DIMENSIONS

Vectors = NDArray[np.float32]

PLACES = 10  # articles that `align` and `hit` look at, for each query (paper: top 10)
CLARITY_PLACES = 100  # cosines whose spread tells clear queries from vague ones
MOST_TEXTS = 400_000  # kept, 1.5 KB each; then the oldest go
_SEARCHED_AT_ONCE = 256


class TextVectors:
    """Unit vectors of texts, embedded in one call for all that are missing."""

    def __init__(self, embedder: Embedder, most: int = MOST_TEXTS) -> None:
        self._embedder, self._most = embedder, most
        self._rows: dict[str, Vectors] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_rows": {}}

    def of(self, texts: Sequence[str]) -> Vectors:
        """[n, 384], one row for each text."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._rows]
        if missing:
            self._rows.update(zip(missing, asyncio.run(self._embedder.embed(missing)), strict=True))
        found = np.stack([self._rows[text] for text in texts]) if texts else np.empty((0, EMBEDDING_DIMENSIONS))
        drop_oldest(self._rows, self._most)
        return found.astype(np.float32, copy=False)


class Found(msgspec.Struct, frozen=True):
    """What one query finds."""

    article_ids: tuple[str, ...]  # at most PLACES, best first
    closeness: float  # mean cosine of these
    clarity: float  # 0-1: the share of the index's own headlines that are less clear queries than this one


class NewsIndex:
    """Exact cosine search in the articles of one moment, with the clarity of each query.

    Clarity is NQC (Shtok et al., ACM TOIS 2012): the standard deviation of the scores of the best CLARITY_PLACES. The
    division by the corpus's score is left out, since the mean cosine of an index is near 0 and of either sign. To reach
    [0, 1] it is ranked among the same measure of headlines of the index, each without its own article.
    """

    def __init__(self, articles: Sequence[Article], vectors: TextVectors, headlines: int = 1_000) -> None:
        if not articles:
            raise UsageError("there are no articles that the rewards could search: give those of the examples' time")
        self.texts = vectors
        self._ids = [article.article_id for article in articles]
        self._articles = vectors.of([embedded_text(article) for article in articles])
        self._known = frozenset(self._ids)
        self._found: dict[str, Found] = {}
        self._reference = self._headline_clarity([article.title for article in articles], headlines)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_found": {}}

    def __contains__(self, article_id: str) -> bool:
        return article_id in self._known

    def find(self, queries: Sequence[str]) -> list[Found]:
        """What each query finds, in order; each distinct text is searched for once."""
        missing = [query for query in dict.fromkeys(queries) if query not in self._found]
        for start in range(0, len(missing), _SEARCHED_AT_ONCE):
            part = missing[start : start + _SEARCHED_AT_ONCE]
            self._found.update(zip(part, self._search(self.texts.of(part)), strict=True))
        found = [self._found[query] for query in queries]
        drop_oldest(self._found, MOST_TEXTS)
        return found

    def _search(self, queries: Vectors) -> Iterable[Found]:
        cosines = queries @ self._articles.T
        places = best_places(cosines, PLACES)
        best = np.take_along_axis(cosines, places, axis=1)
        ranks = np.searchsorted(self._reference, _spread(cosines)) / len(self._reference)
        for row, close, clarity in zip(places, best.mean(axis=1), ranks, strict=True):
            yield Found(tuple(self._ids[place] for place in row), float(close), float(clarity))

    def _headline_clarity(self, titles: Sequence[str], most: int) -> Vectors:
        """Sorted; headlines evenly spread over the index."""
        places = np.unique(np.linspace(0, len(titles) - 1, min(most, len(titles))).astype(int))
        parts = []
        for part in np.array_split(places, -(-len(places) // _SEARCHED_AT_ONCE)):
            cosines = self.texts.of([titles[place] for place in part]) @ self._articles.T
            if cosines.shape[1] > 1:  # the own article, by the worst of the others: it tells nothing, it is not the top
                cosines[np.arange(len(part)), part] = cosines.min(axis=1)
            parts.append(_spread(cosines))
        return np.sort(np.concatenate(parts))


def check_covers(articles: Sequence[Article], first_ms: int) -> None:
    """UsageError when all news is older than `first_ms`, the first moment of the examples."""
    if not articles:
        raise UsageError("the log holds no articles: nothing that was clicked could be found")
    newest_ms = max(article.published_at for article in articles)
    if newest_ms < first_ms:
        raise UsageError(
            f"the newest article is {(first_ms - newest_ms) / 86_400_000:.1f} days older than the examples: prepare "
            "them from a log that holds the articles of the events' own time"
        )


def drop_oldest(cache: dict[str, Any], most: int) -> None:
    """Keep the `most` entries that were added last."""
    for key in list(islice(cache, max(0, len(cache) - most))):
        del cache[key]


def best_places(cosines: Vectors, k: int) -> NDArray[np.int64]:
    """Places of the `k` greatest of each row, greatest first; ties by place."""
    k = min(k, cosines.shape[1])
    places = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    places.sort(axis=1)
    order = np.argsort(-np.take_along_axis(cosines, places, axis=1), axis=1, kind="stable")
    return np.take_along_axis(places, order, axis=1)


def _spread(cosines: Vectors) -> Vectors:
    k = min(CLARITY_PLACES, cosines.shape[1])
    spread: Vectors = np.partition(cosines, cosines.shape[1] - k, axis=1)[:, -k:].std(axis=1)
    return spread
