"""One policy on one reader, and what many of these say: means, differences, readers by how much is known of them."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from offline.evaluate.metrics import (
    RESAMPLES,
    Estimate,
    estimate,
    found_share_at_k,
    ndcg_at_k,
    paired_difference,
    reciprocal_rank,
    resampled_means,
)

ReaderGroup = Literal["all", "cold", "warm"]
GROUPS: Final[tuple[ReaderGroup, ...]] = ("all", "cold", "warm")
COLD_SIGNALS = 3  # a reader with at most so many signals is cold
METRICS: Final = ("recall_at_5", "recall_at_10", "recall_at_50", "ndcg_at_5", "ndcg_at_10", "mrr")
KEY_METRIC: Final = "recall_at_10"


class ReaderScore(msgspec.Struct, frozen=True, kw_only=True):
    """The metrics of one ranking against what the reader clicked (offline/evaluate/metrics.py)."""

    policy: str
    user_id: str
    signals: int
    answered: bool
    recall_at_5: float
    recall_at_10: float
    recall_at_50: float
    ndcg_at_5: float
    ndcg_at_10: float
    mrr: float


class PolicyRow(msgspec.Struct, frozen=True, kw_only=True):
    """A policy on a group of readers."""

    policy: str
    group: ReaderGroup
    metrics: dict[str, Estimate]
    answered: float  # share of readers with any article


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """`policy` minus `other` by reader, and the ratio of their means, with 95 % intervals."""

    policy: str
    other: str
    group: ReaderGroup
    metric: str
    difference: Estimate
    ratio: Estimate | None  # None where the other finds nothing


def score(policy: str, user_id: str, signals: int, ranked: Sequence[str], positives: frozenset[str]) -> ReaderScore:
    return ReaderScore(
        policy=policy,
        user_id=user_id,
        signals=signals,
        answered=bool(ranked),
        recall_at_5=found_share_at_k(ranked, positives, 5),
        recall_at_10=found_share_at_k(ranked, positives, 10),
        recall_at_50=found_share_at_k(ranked, positives, 50),
        ndcg_at_5=ndcg_at_k(ranked, positives, 5),
        ndcg_at_10=ndcg_at_k(ranked, positives, 10),
        mrr=reciprocal_rank(ranked, positives),
    )


def by_policy(scores: Sequence[ReaderScore]) -> dict[str, list[ReaderScore]]:
    """Each in the order of its readers' ids; policies in the order of their names."""
    found: dict[str, list[ReaderScore]] = {}
    for row in sorted(scores, key=lambda row: (row.policy, row.user_id)):
        found.setdefault(row.policy, []).append(row)
    return found


def policy_rows(scores: Mapping[str, Sequence[ReaderScore]], *, seed: int) -> list[PolicyRow]:
    """Every policy on every group that has readers."""
    rows = []
    for policy, all_of_it in scores.items():
        for group in GROUPS:
            of_group = members(all_of_it, group)
            if not of_group:
                continue
            metrics = {name: estimate(values_of(of_group, name), seed=seed) for name in METRICS}
            answered = sum(row.answered for row in of_group) / len(of_group)
            rows.append(PolicyRow(policy=policy, group=group, metrics=metrics, answered=answered))
    return rows


def differences(
    ours: Sequence[ReaderScore], theirs: Sequence[ReaderScore], *, seed: int, metric: str = KEY_METRIC
) -> list[Difference]:
    """Ours against theirs on the readers of ours, by group."""
    known = {row.user_id for row in ours}
    theirs = [row for row in theirs if row.user_id in known]
    found = []
    for group in GROUPS:
        pair = members(ours, group), members(theirs, group)
        if not pair[0]:
            continue
        left, right = values_of(pair[0], metric), values_of(pair[1], metric)
        found.append(
            Difference(
                policy=ours[0].policy,
                other=theirs[0].policy,
                group=group,
                metric=metric,
                difference=paired_difference(list(left), list(right), seed=seed),
                ratio=paired_ratio(left, right, seed=seed),
            )
        )
    return found


def paired_ratio(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], *, seed: int, resamples: int = RESAMPLES
) -> Estimate | None:
    """mean(ours) / mean(theirs) with the interval of resampling readers; None where theirs is 0."""
    if not theirs.any():
        return None
    found = resampled_means(theirs, seed=seed, resamples=resamples)  # the same seed: the same readers as for ours
    drawn = resampled_means(ours, seed=seed, resamples=resamples)[found > 0] / found[found > 0]
    low, high = np.quantile(drawn, (0.025, 0.975)) if drawn.size else (np.nan, np.nan)
    return Estimate(float(ours.mean() / theirs.mean()), float(low), float(high), len(ours))


def members(scores: Sequence[ReaderScore], group: ReaderGroup) -> list[ReaderScore]:
    if group == "all":
        return list(scores)
    return [row for row in scores if (row.signals <= COLD_SIGNALS) == (group == "cold")]


def values_of(scores: Sequence[ReaderScore], metric: str) -> NDArray[np.float64]:
    return np.array([getattr(row, metric) for row in scores], dtype=np.float64)
