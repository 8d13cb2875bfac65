"""From moments to estimates of one arm: means, ratios, and both with the noise of before the experiment taken out.

Every estimate is linear in the column means to first order, so one gradient over the columns gives variances and
covariances alike (the delta method; Deng, Knoblich, Lu: Applying the Delta Method in Metric Analytics, KDD 2018).
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from offline.experiments.moments import Floats, Moments, NotEnoughData

# The columns of a metric's moments, one row for each user. A mean metric has denominator 1.
NUMERATOR: Final = 0
DENOMINATOR: Final = 1
PRE_NUMERATOR: Final = 2
PRE_DENOMINATOR: Final = 3
COLUMNS: Final = 4


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A statistic of one arm, with the variance of the statistic itself (not of a user)."""

    value: float
    variance: float
    count: int  # users
    unadjusted: float  # the plain statistic, the denominator of a relative lift also under CUPED


class Linear(msgspec.Struct, frozen=True, eq=False):
    """A statistic and its gradient by the column means."""

    value: float
    gradient: Floats  # [COLUMNS]


def mean_of(moments: Moments, column: int = NUMERATOR) -> Linear:
    """The mean of one column."""
    return Linear(float(moments.mean[column]), np.eye(COLUMNS)[column])


def ratio_of(moments: Moments, numerator: int = NUMERATOR, denominator: int = DENOMINATOR) -> Linear:
    """Total of one column by total of another, the users being the sampled units."""
    below = float(moments.mean[denominator])
    if below == 0:
        raise NotEnoughData("the denominator is zero for all users")
    ratio = float(moments.mean[numerator]) / below
    gradient = np.zeros(COLUMNS)
    gradient[numerator], gradient[denominator] = 1 / below, -ratio / below
    return Linear(ratio, gradient)


def plain(moments: Moments, *, ratio: bool) -> Estimate:
    """The estimate without any covariate. Raises NotEnoughData for fewer than two users or an empty denominator."""
    of = ratio_of(moments) if ratio else mean_of(moments)
    variance = _variance(of, moments.covariance()) / moments.count
    return Estimate(value=of.value, variance=variance, count=moments.count, unadjusted=of.value)


def cuped(arms: Sequence[Moments], *, ratio: bool) -> list[Estimate]:
    """One estimate for each arm, adjusted by the same metric before the experiment; theta is shared by all arms.

    Deng, Xu, Kohavi, Walker: Improving the Sensitivity of Online Controlled Experiments by Utilizing Pre-Experiment
    Data, WSDM 2013; on ratios by their gradients. Without variance in the covariate the estimates are the plain ones.
    """
    pooled = merged_mean(arms)
    targets = [ratio_of(arm) if ratio else mean_of(arm) for arm in arms]
    covariates = [_covariate(arm, ratio=ratio) for arm in arms]
    theta = _theta(arms, targets, covariates)
    centre = _covariate(pooled, ratio=ratio).value
    return [_adjusted(*row, theta, centre) for row in zip(arms, targets, covariates, strict=True)]


def post_stratified(strata: Sequence[Estimate], shares: Sequence[float]) -> Estimate:
    """Stratum estimates of one arm, weighted by the strata's shares of all users of the experiment.

    Miratrix, Sekhon, Yu: Adjusting treatment effect estimates by post-stratification, JRSS B 75 (2013). Needed for cold
    readers: they have no history that CUPED could use, so they are a stratum of their own.
    """
    weights = np.asarray(shares, dtype=np.float64)
    if not len(strata) or not np.isclose(weights.sum(), 1):
        raise NotEnoughData("the strata's shares do not add up to 1")
    return Estimate(
        value=float(weights @ [row.value for row in strata]),
        variance=float(weights**2 @ [row.variance for row in strata]),
        count=sum(row.count for row in strata),
        unadjusted=float(weights @ [row.unadjusted for row in strata]),
    )


def merged_mean(arms: Sequence[Moments]) -> Moments:
    """All arms as one group: only its means are of use, as its spread holds the effect."""
    whole = Moments.zero(COLUMNS)
    for arm in arms:
        whole = whole + arm
    return whole


def _covariate(moments: Moments, *, ratio: bool) -> Linear:
    if not ratio:
        return mean_of(moments, PRE_NUMERATOR)
    if moments.mean[PRE_DENOMINATOR] == 0:
        return Linear(0.0, np.zeros(COLUMNS))  # nobody was there before
    return ratio_of(moments, PRE_NUMERATOR, PRE_DENOMINATOR)


def _theta(arms: Sequence[Moments], targets: Sequence[Linear], covariates: Sequence[Linear]) -> float:
    """The regression coefficient within arms."""
    together = spread = 0.0
    for arm, target, covariate in zip(arms, targets, covariates, strict=True):
        together += float(target.gradient @ arm.products @ covariate.gradient)
        spread += float(covariate.gradient @ arm.products @ covariate.gradient)
    return together / spread if spread > 0 else 0.0


def _adjusted(arm: Moments, target: Linear, covariate: Linear, theta: float, centre: float) -> Estimate:
    value = target.value - theta * (covariate.value - centre)
    gradient = Linear(value, target.gradient - theta * covariate.gradient)
    variance = _variance(gradient, arm.covariance()) / arm.count
    return Estimate(value=value, variance=variance, count=arm.count, unadjusted=target.value)


def _variance(of: Linear, covariance: Floats) -> float:
    return max(0.0, float(of.gradient @ covariance @ of.gradient))  # rounding can leave a tiny negative
