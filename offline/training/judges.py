"""Judges of a list without a model to ask: how much of the reader it covers, how specific its queries are.

A judge gives each (signals, queries) pair a score in [0, 1], or None to abstain. `llm_judge.py` is the other kind.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

from offline.training.news_index import MOST_TEXTS, NewsIndex, TextVectors, Vectors

UNRELATED, SAME = 0.2, 0.7  # MiniLM's cosine of texts about different things, and about one thing in other words
ONE_INTEREST = 0.6  # cosine distance up to which groups of signals are one interest (average linkage)
MOST_INTERESTS = 8  # the best supported ones: five queries cannot meet twenty single signals


class Judged(msgspec.Struct, frozen=True):
    """What a judge sees."""

    signals: tuple[str, ...]  # the reader's, cleaned, newest first
    queries: tuple[str, ...]


class Judge(Protocol):
    """Scores in [0, 1] in order; None where it abstains."""

    def __call__(self, rows: Sequence[Judged]) -> list[float | None]: ...


class EmbeddingCoverage:
    """Mean over the reader's interests of how well the best query meets each.

    Interests are the clusters of the signals' vectors; one is met by max cosine(query, its centre), scaled so that
    UNRELATED is 0 and SAME is 1: beyond that, being closer to the very words of the signals earns nothing.
    """

    def __init__(self, texts: TextVectors) -> None:
        self._texts = texts
        self._interests: dict[tuple[str, ...], Vectors] = {}

    def __call__(self, rows: Sequence[Judged]) -> list[float | None]:
        self._texts.of([text for row in rows for text in (*row.signals, *row.queries)])  # one call of the embedder
        return [self._judge(row) for row in rows]

    def _judge(self, row: Judged) -> float | None:
        if not row.signals:
            return None
        if not row.queries:
            return 0.0
        cosines = self._interests_of(row.signals) @ self._texts.of(row.queries).T
        return float(np.clip((cosines.max(axis=1) - UNRELATED) / (SAME - UNRELATED), 0, 1).mean())

    def _interests_of(self, signals: tuple[str, ...]) -> Vectors:
        if signals not in self._interests:
            if len(self._interests) >= MOST_TEXTS:
                self._interests.clear()
            self._interests[signals] = interest_centres(self._texts.of(signals))
        return self._interests[signals]


class EmbeddingSpecificity:
    """Mean clarity of the queries against the index (`NewsIndex`); 0 for an empty list."""

    def __init__(self, index: NewsIndex) -> None:
        self._index = index

    def __call__(self, rows: Sequence[Judged]) -> list[float | None]:
        found = iter(self._index.find([query for row in rows for query in row.queries]))
        clarities = [[next(found).clarity for _ in row.queries] for row in rows]
        return [float(np.mean(values)) if values else 0.0 for values in clarities]


def interest_centres(signals: Vectors) -> Vectors:
    """Unit centres [interests, d] of the clusters of `signals` [n, d], largest first, then newest."""
    labels = np.ones(len(signals), dtype=int)
    if len(signals) > 1:
        tree = linkage(signals.astype(np.float64), method="average", metric="cosine")
        labels = fcluster(np.clip(tree, 0, None), ONE_INTEREST, criterion="distance")
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    groups.sort(key=lambda places: (-len(places), places[0]))
    centres = np.stack([signals[places].mean(axis=0) for places in groups[:MOST_INTERESTS]])
    unit: Vectors = centres / np.linalg.norm(centres, axis=1, keepdims=True).clip(min=1e-9)
    return unit
