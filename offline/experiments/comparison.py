"""Two arms compared: absolute difference, relative lift, non-inferiority. Pure functions of two estimates."""

import math
from typing import Literal

import msgspec
import scipy  # its parts load when they are used, and no worker uses them

from offline.experiments.estimates import Estimate
from offline.experiments.moments import NotEnoughData

MIN_CONTROL_ERRORS = 3.0  # standard errors between the control mean and 0 for a relative lift to make sense
LiftMethod = Literal["log-ratio", "fieller"]


class Interval(msgspec.Struct, frozen=True):
    """Both ends included, at the level 1 - alpha that the caller asked for."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Treatment minus control."""

    value: float
    standard_error: float
    degrees: float  # of freedom, Welch-Satterthwaite
    interval: Interval
    p_value: float  # two-sided


class Lift(msgspec.Struct, frozen=True, kw_only=True):
    """Treatment by control, minus 1."""

    value: float
    interval: Interval
    method: LiftMethod


class NonInferiority(msgspec.Struct, frozen=True, kw_only=True):
    """`low` is the one-sided bound of the relative change on the side of harm: an upper one where lower is better. The
    guardrail holds when the change is shown to stay within the margin on that side."""

    margin: float  # share of the control mean
    low: float
    p_value: float
    holds: bool


def difference(control: Estimate, treatment: Estimate, *, alpha: float = 0.05) -> Difference:
    """Welch's test. Raises NotEnoughData when neither arm varies (a p-value of 1 would be dressed up as a result)."""
    error = _standard_error(control, treatment)
    degrees = _degrees(control, treatment)
    value = treatment.value - control.value
    reach = float(scipy.stats.t.ppf(1 - alpha / 2, degrees)) * error
    return Difference(
        value=value,
        standard_error=error,
        degrees=degrees,
        interval=Interval(value - reach, value + reach),
        p_value=float(2 * scipy.stats.t.sf(abs(value) / error, degrees)),
    )


def relative_lift(
    control: Estimate, treatment: Estimate, *, alpha: float = 0.05, method: LiftMethod = "log-ratio"
) -> Lift:
    """The lift over the control's unadjusted value; refused (NotEnoughData) when that is within 3 errors of zero.

    log-ratio: the delta method on log(treatment / control). fieller: Some Problems in Interval Estimation, JRSS B 16
    (1954), exact for normal means. The p-value belongs to `difference`: one test, two scales.
    """
    pair = _against(control, treatment)
    quantile = float(scipy.stats.t.ppf(1 - alpha / 2, _degrees(control, treatment)))
    ends = _log_ratio_ends if method == "log-ratio" else _fieller_ends
    low, high = ends(pair, quantile)
    return Lift(value=pair.treatment / pair.control - 1, interval=Interval(low - 1, high - 1), method=method)


def log_ratio(control: Estimate, treatment: Estimate) -> Estimate:
    """log(treatment / control) by the delta method; refused as `relative_lift` is. `count` keeps Welch's degrees of
    freedom."""
    pair = _against(control, treatment)
    value, count = _log(pair), round(_degrees(control, treatment)) + 1
    return Estimate(value=value, variance=_log_variance(pair), count=count, unadjusted=value)


def non_inferiority(
    control: Estimate, treatment: Estimate, *, margin: float, alpha: float = 0.05, higher_is_better: bool = True
) -> NonInferiority:
    """One-sided: has the metric got worse by less than `margin` (a share of the control mean)?

    The control's own error enters through the margin: the statistic is treatment - (1 - margin) control, or
    (1 + margin) control - treatment where lower is better.
    """
    side = 1 if higher_is_better else -1
    kept = 1 - side * margin
    error = math.sqrt(treatment.variance + kept**2 * control.variance)
    if error == 0 or control.value <= 0:
        raise NotEnoughData("no variation, or a control mean that is not positive")
    degrees = _degrees(control, treatment)
    p_value = float(scipy.stats.t.sf(side * (treatment.value - kept * control.value) / error, degrees))
    ends = relative_lift(control, treatment, alpha=2 * alpha, method="fieller").interval
    worst = ends.low if higher_is_better else ends.high
    return NonInferiority(margin=margin, low=worst, p_value=p_value, holds=p_value < alpha)


class _Pair(msgspec.Struct, frozen=True):
    control: float
    treatment: float
    control_variance: float
    treatment_variance: float


def _against(control: Estimate, treatment: Estimate) -> _Pair:
    """On the scale of the unadjusted control mean, which CUPED's shift must not change."""
    base, error = control.unadjusted, math.sqrt(control.variance)
    if min(base, control.value) <= MIN_CONTROL_ERRORS * error:
        raise NotEnoughData("the control mean is too near zero for a relative lift")
    return _Pair(base, base + treatment.value - control.value, control.variance, treatment.variance)


def _log_ratio_ends(pair: _Pair, quantile: float) -> tuple[float, float]:
    centre, reach = _log(pair), quantile * math.sqrt(_log_variance(pair))
    return math.exp(centre - reach), math.exp(centre + reach)


def _log(pair: _Pair) -> float:
    if pair.treatment <= 0:
        raise NotEnoughData("the treatment mean is not positive: no logarithm")
    return math.log(pair.treatment / pair.control)


def _log_variance(pair: _Pair) -> float:
    return pair.treatment_variance / pair.treatment**2 + pair.control_variance / pair.control**2


def _fieller_ends(pair: _Pair, quantile: float) -> tuple[float, float]:
    """Roots of (t - r c)^2 = q^2 (vt + r^2 vc)."""
    square = quantile**2
    a = pair.control**2 - square * pair.control_variance
    b = -2 * pair.treatment * pair.control
    c = pair.treatment**2 - square * pair.treatment_variance
    if a <= 0:
        raise NotEnoughData("Fieller's interval is not bounded: the control mean is too near zero")
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


def _standard_error(control: Estimate, treatment: Estimate) -> float:
    error = math.sqrt(control.variance + treatment.variance)
    if error == 0:
        raise NotEnoughData("no variation in either arm")
    return error


def _degrees(control: Estimate, treatment: Estimate) -> float:
    """Satterthwaite, An Approximate Distribution of Estimates of Variance Components, Biometrics Bulletin 2 (1946)."""
    if min(control.count, treatment.count) < 2:
        raise NotEnoughData("fewer than two users in an arm")
    parts = [(arm.variance, arm.count - 1) for arm in (control, treatment)]
    below = sum(variance**2 / freedom for variance, freedom in parts)
    if below == 0:
        raise NotEnoughData("no variation in either arm")
    return sum(variance for variance, _ in parts) ** 2 / below
