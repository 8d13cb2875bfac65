"""What would another policy have earned? Estimates from a log with propensities, clustered by user.

Every estimator here is a ratio of two sums over users, so `Moments` of per-user sums hold all of it, and its standard
error comes from users and not from rows: rows of one reader are alike, and intervals from rows cover far too seldom.
Sources: Horvitz, Thompson 1952 (IPS); Swaminathan, Joachims 2015 (SNIPS); Dudik, Langford, Li 2011 (DR); Li et al. 2018
(item-position model for slates); Jeunen, Goethals 2021 (differences with paired weights).
"""

from collections.abc import Callable
from typing import Final, Literal

import msgspec
import numpy as np
from scipy import stats

from offline.experiments.comparison import Interval
from offline.experiments.gates import Gates
from offline.experiments.moments import Floats, Moments, NotEnoughData

Estimator = Literal["logged", "ips", "beta-ips", "snips", "clipped", "direct", "doubly-robust", "sndr"]

# The columns of one user's sums over the rows of the log, w = target probability / propensity.
ROWS: Final = 0
REWARD: Final = 1
WEIGHT: Final = 2
WEIGHTED_REWARD: Final = 3
CLIPPED_REWARD: Final = 4
DIRECT: Final = 5  # the reward model's value of the target policy
CORRECTED: Final = 6  # the same + w (reward - the model's value of what was shown)
SQUARED_WEIGHT: Final = 7
CLIPPED_WEIGHT: Final = 8
COLUMNS: Final = 9

# Quotients of two sums; the two estimators that are more than one have functions of their own.
_TERMS: Final[dict[Estimator, tuple[int, int]]] = {
    "logged": (REWARD, ROWS),
    "ips": (WEIGHTED_REWARD, ROWS),
    "snips": (WEIGHTED_REWARD, WEIGHT),
    "clipped": (CLIPPED_REWARD, ROWS),
    "direct": (DIRECT, ROWS),
    "doubly-robust": (CORRECTED, ROWS),
}


class Log(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Rows of a log, one for each shown place, all arrays [n]."""

    user: Floats  # an integer code for each user
    reward: Floats
    propensity: Floats  # with which the logging policy put this item at this position
    target: Floats  # with which the other policy puts it there
    predicted: Floats  # the reward model for the shown item; zeros without a model
    predicted_target: Floats  # the reward model's mean under the other policy; zeros without a model


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    rows: int
    users: int
    mean_weight: float
    mean_weight_error: float
    effective_rows: float  # Kish: (sum w)^2 / sum w^2
    largest_weight_share: float
    failures: tuple[str, ...]


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """The mean reward of one shown place under the other policy."""

    estimator: Estimator
    value: float
    standard_error: float
    interval: Interval


def user_sums(log: Log, *, clip: float = 10.0) -> Floats:
    """[users, COLUMNS]: the per-user sums. Raises NotEnoughData for a log that no estimator can use."""
    check_propensities(log)
    return row_sums(log, clip=clip)


def row_sums(log: Log, *, clip: float = 10.0) -> Floats:
    """The same for a part of a log that `check_propensities` need not accept by itself: a bucket of its users."""
    weight = log.target / log.propensity
    terms = np.column_stack(
        [
            np.ones_like(weight),
            log.reward,
            weight,
            weight * log.reward,
            np.minimum(weight, clip) * log.reward,
            log.predicted_target,
            log.predicted_target + weight * (log.reward - log.predicted),
            weight**2,
            np.minimum(weight, clip),
        ]
    )
    users, at = np.unique(log.user, return_inverse=True)
    sums = np.zeros((len(users), COLUMNS))
    np.add.at(sums, at, terms)
    return sums


def check_propensities(log: Log) -> None:
    """Refuses what makes every estimate meaningless."""
    if not len(log.propensity):
        raise NotEnoughData("the log has no rows")
    if not ((log.propensity > 0) & (log.propensity <= 1)).all():
        raise NotEnoughData("propensities must be above 0 and at most 1")
    if not ((log.target >= 0) & (log.target <= 1)).all():
        raise NotEnoughData("the other policy's probabilities must be between 0 and 1")
    if (log.propensity == 1).all():
        raise NotEnoughData(
            "the log is deterministic: nothing was left to chance, so no other policy can be judged by it"
        )


def diagnose(moments: Moments, largest_weight: float, gates: Gates) -> Diagnosis:
    """The gates of experiments.md, trap 19, from the moments of `user_sums` and the largest weight of a row."""
    totals = moments.mean * moments.count
    weight = _ratio(moments, WEIGHT, ROWS)
    effective = float(totals[WEIGHT] ** 2 / totals[SQUARED_WEIGHT]) if totals[SQUARED_WEIGHT] else 0.0
    share = float(largest_weight / totals[WEIGHT]) if totals[WEIGHT] else 1.0
    failures = []
    if abs(weight.value - 1) > gates.mean_weight_errors * weight.standard_error:
        failures.append(
            f"the mean weight is {weight.value:.3f}, not 1: the log lacks support, or its propensities are wrong"
        )
    if effective < gates.min_effective_rows:
        failures.append(f"{effective:,.0f} effective rows, fewer than {gates.min_effective_rows:,.0f}")
    if share > gates.max_weight_share:
        failures.append(f"one row holds {share:.1%} of all weight, more than {gates.max_weight_share:.0%}")
    return Diagnosis(
        rows=round(float(totals[ROWS])),
        users=moments.count,
        mean_weight=weight.value,
        mean_weight_error=weight.standard_error,
        effective_rows=effective,
        largest_weight_share=share,
        failures=tuple(failures),
    )


def value(moments: Moments, estimator: Estimator, *, alpha: float = 0.05) -> Value:
    """One estimate with its interval over users."""
    found = _OWN[estimator](moments) if estimator in _OWN else _ratio(moments, *_TERMS[estimator])
    reach = float(stats.norm.ppf(1 - alpha / 2)) * found.standard_error
    return Value(
        estimator=estimator,
        value=found.value,
        standard_error=found.standard_error,
        interval=Interval(found.value - reach, found.value + reach),
    )


def clip_bias_bound(moments: Moments, largest_reward: float) -> float:
    """The most that clipping takes off: rewards are 0 to `largest_reward`, and weights are 1 on average, so what was
    cut is at most (1 - mean clipped weight) times it (Bottou et al. 2013, section 4.4)."""
    kept = _ratio(moments, CLIPPED_WEIGHT, ROWS).value
    return max(0.0, 1 - kept) * largest_reward


def difference_sums(production: Log, other: Log, *, clip: float = 10.0) -> Floats:
    """Per-user sums for `other` minus `production`, two policies on the same rows: the weights are paired, so what both
    would do alike cancels (ROWS stay, and WEIGHT is the other policy's)."""
    check_propensities(production)
    check_propensities(other)
    return paired_sums(production, other, clip=clip)


def paired_sums(production: Log, other: Log, *, clip: float = 10.0) -> Floats:
    """The same for a part of a log, unchecked."""
    sums, baseline = row_sums(other, clip=clip), row_sums(production, clip=clip)
    for column in (REWARD, WEIGHTED_REWARD, CLIPPED_REWARD, DIRECT, CORRECTED):
        sums[:, column] -= baseline[:, column]
    return sums


class _Ratio(msgspec.Struct, frozen=True):
    value: float
    standard_error: float


def _ratio(moments: Moments, above: int, below: int) -> _Ratio:
    """The delta method over users (estimates.py has the source)."""
    base = float(moments.mean[below])
    if base == 0:
        raise NotEnoughData("all weights are zero: the other policy never shows what was shown")
    ratio = float(moments.mean[above]) / base
    gradient = np.zeros(COLUMNS)
    gradient[above] += 1 / base
    gradient[below] -= ratio / base
    return _linear(moments, ratio, gradient)


def _linear(moments: Moments, found: float, gradient: Floats) -> _Ratio:
    variance = float(gradient @ moments.covariance() @ gradient) / moments.count
    return _Ratio(found, max(0.0, variance) ** 0.5)


def _with_baseline(moments: Moments) -> _Ratio:
    """IPS with the baseline that leaves it the least variance: weights are 1 on average, so what their mean is off by
    is noise that can be taken out, as CUPED does with history (Gupta, Jeunen, Oosterhuis, Vasile: Optimal Baseline
    Corrections for Off-Policy Contextual Bandits, RecSys 2024). Unbiased up to the estimation of the baseline."""
    plain, rows = _ratio(moments, WEIGHTED_REWARD, ROWS).value, float(moments.mean[ROWS])
    excess, error = np.zeros(COLUMNS), np.zeros(COLUMNS)
    excess[WEIGHT], excess[ROWS] = 1.0, -1.0
    error[WEIGHTED_REWARD], error[ROWS] = 1.0, -plain
    covariance = moments.covariance()
    spread = float(excess @ covariance @ excess)
    baseline = float(error @ covariance @ excess) / spread if spread > 0 else 0.0
    found = plain - baseline * float(excess @ moments.mean) / rows
    gradient = (error - baseline * excess) / rows
    gradient[ROWS] += (plain - found) / rows
    return _linear(moments, found, gradient)


def _normalised_robust(moments: Moments) -> _Ratio:
    """The model's value, and its corrections divided by the sum of their weights (Thomas, Brunskill, ICML 2016)."""
    direct, rows, weight = (float(moments.mean[column]) for column in (DIRECT, ROWS, WEIGHT))
    if weight == 0:
        raise NotEnoughData("all weights are zero: the other policy never shows what was shown")
    correction = float(moments.mean[CORRECTED]) - direct
    gradient = np.zeros(COLUMNS)
    gradient[DIRECT], gradient[CORRECTED] = 1 / rows - 1 / weight, 1 / weight
    gradient[ROWS], gradient[WEIGHT] = -direct / rows**2, -correction / weight**2
    return _linear(moments, direct / rows + correction / weight, gradient)


_OWN: Final[dict[Estimator, Callable[[Moments], _Ratio]]] = {
    "beta-ips": _with_baseline,
    "sndr": _normalised_robust,
}
