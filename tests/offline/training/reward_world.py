"""A plane of known vectors, so that the rewards' values can be computed beside the tests by hand."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from offline.training.news_index import NewsIndex, TextVectors
from schemas.article import Article
from schemas.names import EMBEDDING_DIMENSIONS

ANGLES = {"north": 90, "northeast": 45, "east": 0, "west": 180, "south": 270, "nearly east": 10}


class Compass:
    """An embedder: each text is its angle's point on the circle; other texts are orthogonal to all of these."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.calls.append(list(texts))
        vectors = np.zeros((len(texts), EMBEDDING_DIMENSIONS), np.float32)
        for row, text in enumerate(texts):
            angle = ANGLES.get(text.partition(".")[0])
            if angle is None:
                vectors[row, 2] = 1
            else:
                vectors[row, :2] = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        return vectors

    async def version(self) -> str:
        return "compass"

    async def close(self) -> None: ...


def article(name: str, title: str, published_at: int = 0) -> Article:
    return Article(article_id=name, title=title, url="", source="test", published_at=published_at)


def index(*titles: str) -> NewsIndex:
    """Articles a0, a1, ... with these titles."""
    return NewsIndex([article(f"a{n}", title) for n, title in enumerate(titles)], TextVectors(Compass()))
