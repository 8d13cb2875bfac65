"""Retrieval metrics per reader, and intervals over readers.

Recall@K is found / min(K, positives), the convention of quality.md: a perfect list scores 1 also when a reader has more
positives than K. All metrics want at least one positive; a reader without one says nothing about retrieval.
"""

import math
from collections.abc import Collection, Sequence
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2_000
_RESAMPLED_AT_ONCE = 8_000_000  # values, so that many readers do not need much memory


def recall_at_k(ranked: Sequence[str], positives: Collection[str], k: int) -> float:
    """Share of the positives, or of k when there are more, among the first k."""
    _check(positives, k)
    found = len(set(ranked[:k]) & set(positives))
    return found / min(k, len(set(positives)))


def found_share_at_k(ranked: Sequence[str], positives: Collection[str], k: int) -> float:
    """Share of all positives among the first k, found / positives: below 1 for more than k positives, however good."""
    _check(positives, k)
    return len(set(ranked[:k]) & set(positives)) / len(set(positives))


def ndcg_at_k(ranked: Sequence[str], positives: Collection[str], k: int) -> float:
    """Binary gains, discount log2(rank + 1), divided by that of a perfect list. A repeated id counts once."""
    _check(positives, k)
    wanted = set(positives)
    gain = 0.0
    for rank, article_id in enumerate(ranked[:k], start=1):
        if article_id in wanted:
            wanted.discard(article_id)
            gain += 1 / math.log2(rank + 1)
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(set(positives))) + 1))
    return gain / best


def reciprocal_rank(ranked: Sequence[str], positives: Collection[str]) -> float:
    """1 / rank of the first positive; 0 when there is none. Its mean over readers is the MRR."""
    _check(positives, 1)
    wanted = set(positives)
    return next((1 / rank for rank, article_id in enumerate(ranked, start=1) if article_id in wanted), 0.0)


class Estimate(msgspec.Struct, frozen=True):
    """A mean over readers with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    readers: int


def estimate(values: Sequence[float] | NDArray[np.float64], *, seed: int, resamples: int = RESAMPLES) -> Estimate:
    """Mean of one value per reader; the interval comes from resampling readers."""
    data = _values(values)
    low, high = np.quantile(resampled_means(data, seed=seed, resamples=resamples), (0.025, 0.975))
    return Estimate(float(data.mean()), float(low), float(high), len(data))


def paired_difference(
    ours: Sequence[float], theirs: Sequence[float], *, seed: int, resamples: int = RESAMPLES
) -> Estimate:
    """Mean of ours - theirs for the same readers in the same order: what they have in common cancels out."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} values against {len(theirs)}: a paired difference needs the same readers")
    return estimate(_values(ours) - _values(theirs), seed=seed, resamples=resamples)


def _check(positives: Collection[str], k: int) -> None:
    if k < 1:
        raise ValueError(f"k is {k}: ask for at least one place")
    if not positives:
        raise ValueError("no positives: leave out readers with nothing to find")


def _values(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    data = np.asarray(values, dtype=np.float64)
    if not data.size:
        raise ValueError("no values: an interval needs at least one reader")
    return data


def resampled_means(data: NDArray[np.float64], *, seed: int, resamples: int = RESAMPLES) -> NDArray[np.float64]:
    """[resamples], the means of `data` over readers drawn with replacement; the same seed draws the same readers."""
    if data.size * resamples <= _RESAMPLED_AT_ONCE:
        kept: NDArray[np.float64] = _drawn(seed, data.size, resamples) @ data / data.size
        return kept
    rng = np.random.default_rng(seed)
    rows = max(1, _RESAMPLED_AT_ONCE // data.size)
    parts = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    return np.concatenate([data[rng.integers(0, data.size, (part, data.size))].mean(axis=1) for part in parts])


@lru_cache(maxsize=6)  # all, cold and warm readers, and the fewer of best-of-N: all policies and metrics draw the same
def _drawn(seed: int, readers: int, resamples: int) -> NDArray[np.float64]:
    """[resamples, readers], how often each reader was drawn."""
    places = np.random.default_rng(seed).integers(0, readers, (resamples, readers))
    counts = np.zeros((resamples, readers))
    np.add.at(counts, (np.arange(resamples)[:, None], places), 1.0)
    counts.flags.writeable = False
    return counts
