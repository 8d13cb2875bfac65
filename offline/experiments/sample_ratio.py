"""Sample ratio mismatch: do the arms have the shares that were assigned? If not, no figure of the experiment counts."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np
import scipy  # its parts load when they are used, and no worker uses them

from offline.experiments.moments import NotEnoughData

MIN_EXPECTED = 5.0  # users in each arm for chi-square's approximation
PRIOR_USERS = 1_000.0  # of the Dirichlet prior around the declared weights; ours: tuned for shifts of a few percent


class SampleRatio(msgspec.Struct, frozen=True, kw_only=True):
    """Users counted by arm, beside the declared weights."""

    counts: dict[str, int]
    expected: dict[str, float]
    p_value: float


def chi_square(counts: Mapping[str, int], weights: Mapping[str, float]) -> SampleRatio:
    """Pearson's test of the counts against the declared weights. Arms of weight 0 must have no users."""
    expected = _expected(counts, weights)
    arms = [arm for arm in weights if weights[arm] > 0]
    if any(counts.get(arm, 0) for arm in weights if weights[arm] == 0):
        return SampleRatio(counts=dict(counts), expected=expected, p_value=0.0)
    if min(expected[arm] for arm in arms) < MIN_EXPECTED:
        raise NotEnoughData(f"an arm expects fewer than {MIN_EXPECTED:g} users")
    found = scipy.stats.chisquare([counts.get(arm, 0) for arm in arms], [expected[arm] for arm in arms])
    return SampleRatio(counts=dict(counts), expected=expected, p_value=float(found.pvalue))


def sequential_p_values(
    days: Sequence[Mapping[str, int]], weights: Mapping[str, float], *, prior_users: float = PRIOR_USERS
) -> list[float]:
    """After each day, the always-valid p-value of the cumulative counts: it may be read daily and never goes up.

    Lindon, Malek: Anytime-Valid Inference for Multinomial Count Data, NeurIPS 2022: the Bayes factor of a Dirichlet
    around the weights against the weights themselves is a martingale, so 1 / its maximum bounds the error.
    """
    if not weights or min(weights.values()) <= 0:
        raise NotEnoughData("the sequential test needs positive weights")
    shares = np.array([weights[arm] for arm in weights])
    total, smallest, found = np.zeros(len(shares)), 1.0, []
    for counts in days:
        total += [counts.get(arm, 0) for arm in weights]
        smallest = min(smallest, float(np.exp(-log_bayes_factor(total, shares, prior_users))))
        found.append(smallest)
    return found


def log_bayes_factor(counts: Iterable[float], shares: Iterable[float], prior_users: float) -> float:
    """log of Dirichlet-multinomial by multinomial likelihood; both arguments [arms]."""
    seen, theta = np.asarray(list(counts)), np.asarray(list(shares))
    prior = prior_users * theta
    gained = scipy.special.gammaln(prior + seen) - scipy.special.gammaln(prior) - seen * np.log(theta)
    return float(scipy.special.gammaln(prior_users) - scipy.special.gammaln(prior_users + seen.sum()) + gained.sum())


def _expected(counts: Mapping[str, int], weights: Mapping[str, float]) -> dict[str, float]:
    users = sum(counts.values())
    if not users:
        raise NotEnoughData("no users")
    return {arm: users * weight for arm, weight in weights.items()}
