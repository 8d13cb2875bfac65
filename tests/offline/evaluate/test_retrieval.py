from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from offline.evaluate.retrieval import ExactIndex, Finder, Query, VectorCache
from schemas.article import Article
from schemas.clients.memory_models import MemoryEmbedder


def article(number: int) -> Article:
    return Article(article_id=f"a{number}", title=f"t{number}", url="u", source="s", published_at=number)


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


class CountingEmbedder(MemoryEmbedder):
    """Counts the texts that it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.texts = 0

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts += len(texts)
        return await super().embed(texts)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 60))
def test_search_is_a_full_sort(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = unit(rng.normal(size=(40, 8)).astype(np.float32))
    queries = unit(rng.normal(size=(3, 8)).astype(np.float32))
    found = ExactIndex([article(number) for number in range(40)], vectors).search(queries, k)
    for query, hits in zip(queries, found, strict=True):
        order = sorted(range(40), key=lambda at: -float(vectors[at] @ query))
        assert [hit.article_id for hit in hits] == [f"a{at}" for at in order[:k]]
        assert hits[0].similarity == pytest.approx(float(vectors[order[0]] @ query), abs=1e-6)


def test_equal_articles_go_by_position() -> None:
    vectors = unit(np.ones((5, 4), np.float32))
    (hits,) = ExactIndex([article(number) for number in range(5)], vectors).search(vectors[:1], 5)
    assert [hit.article_id for hit in hits] == ["a0", "a1", "a2", "a3", "a4"]


def test_an_index_wants_one_vector_for_each_article() -> None:
    with pytest.raises(ValueError, match="one for each"):
        ExactIndex([article(1)], np.ones((2, 4), np.float32))


async def test_a_text_is_embedded_once() -> None:
    embedder = CountingEmbedder()
    cache = VectorCache(embedder)
    await cache.add(["a", "b", "a"])
    await cache.add(["b", "c"])
    assert embedder.texts == 3
    assert cache.of(["c", "a"]).shape == (2, 384)
    assert cache.of([]).shape == (0, 384)


async def test_candidates_follow_the_weights_and_leave_out_what_was_seen() -> None:
    texts = ["canal tanker", "canal dockers", "opera tickets"]
    cache = VectorCache(MemoryEmbedder())
    await cache.add(texts)
    finder = Finder(ExactIndex([article(number) for number in range(3)], cache.of(texts)), cache, depth=3)
    await finder.add(["canal tanker", "opera tickets"])

    def ids(canal: float, opera: float, seen: frozenset[str] = frozenset()) -> list[str]:
        queries = [Query("canal tanker", "student", canal), Query("opera tickets", "signals", opera)]
        return finder.candidates(queries, k=2, articles_per_query=1, query_quota=1.0, seen=seen)

    assert ids(1.0, 0.5) == ["a0", "a2"]
    assert ids(0.5, 1.0) == ["a2", "a0"]
    assert ids(1.0, 0.5, frozenset({"a0"})) == ["a2"]
    assert finder.candidates([], k=2, articles_per_query=1, query_quota=1.0, seen=()) == []
