"""Does the effect wear off, or grow? The primary metric by days since first exposure, on one fixed cohort of readers.

By calendar day the mix of readers changes, and a change of mix looks like novelty. Here the same early readers are in
every day, and all their days have passed.
"""

from typing import Any, Final

import msgspec
import numpy as np
import scipy  # its parts load when they are used, and no worker uses them

from offline.experiments.comparison import Interval
from offline.experiments.definition import Analysis, Metric
from offline.experiments.moments import Floats, Moments, NotEnoughData, moments_by

MAX_AGES: Final = 14
MIN_AGES: Final = 3  # a slope through two points has no test of its form
MIN_READERS: Final = 50  # in each arm


class AgePoint(msgspec.Struct, frozen=True, kw_only=True):
    """Treatment minus control on the day `age` after first exposure; 0 is the first 24 hours."""

    age: int
    value: float
    interval: Interval


class Novelty(msgspec.Struct, frozen=True, kw_only=True):
    """`slope`: change of the effect for each day. A p-value for slope = 0 that is small says: novelty or primacy."""

    readers: int = 0
    points: list[AgePoint] = []
    slope: float | None = None
    slope_interval: Interval | None = None
    slope_p_value: float | None = None
    missing: str = ""


def cohort_ages(start_ms: int, watermark_ms: int, day_ms: int) -> int:
    """How many full days are followed: half of the experiment, so that the other half can enter; at most MAX_AGES."""
    return max(0, min(MAX_AGES, (watermark_ms - start_ms) // day_ms // 2))


def age_moments(rows: Floats, arms: Any) -> dict[str, Moments]:
    """`rows` is [readers, ages, 2] (numerator, denominator), `arms` [readers]. Moments have 2 x ages columns."""
    return moments_by(arms, rows.reshape(len(rows), 2 * rows.shape[1]))


def novelty(ages: dict[str, Moments], metric: Metric, arms: tuple[str, str], *, alpha: float = 0.05) -> Novelty:
    """The days of one reader are not independent: their covariance goes into the slope's error, by the delta method."""
    try:
        return _novelty(ages, metric, arms, alpha)
    except NotEnoughData as error:
        return Novelty(missing=str(error))


def follows(analysis: Analysis) -> Metric | None:
    """The primary metric, unless it is a quantile or is counted only after some days."""
    metric = next(metric for metric in analysis.metrics if metric.role == "primary")
    return None if metric.quantile is not None or metric.numerator.after_days else metric


def _novelty(ages: dict[str, Moments], metric: Metric, arms: tuple[str, str], alpha: float) -> Novelty:
    found = [ages.get(arm) for arm in arms]
    if any(arm is None or arm.count < MIN_READERS for arm in found):
        raise NotEnoughData(f"fewer than {MIN_READERS} readers in an arm were followed from early on")
    (before, spread), (after, more) = (_by_age(arm) for arm in found if arm is not None)
    effects, covariance = after - before, spread + more
    if len(effects) < MIN_AGES:
        raise NotEnoughData(f"readers were followed for fewer than {MIN_AGES} days")
    if not np.all(np.diag(covariance) > 0):
        raise NotEnoughData(f"{metric.name} does not vary on some day")
    z = float(scipy.stats.norm.ppf(1 - alpha / 2))
    weights = _slope_weights(len(effects))
    slope, error = float(weights @ effects), float(np.sqrt(weights @ covariance @ weights))
    errors = np.sqrt(np.diag(covariance))
    points = [
        AgePoint(age=age, value=float(d), interval=Interval(float(d - z * e), float(d + z * e)))
        for age, (d, e) in enumerate(zip(effects, errors, strict=True))
    ]
    return Novelty(
        readers=sum(arm.count for arm in found if arm is not None),
        points=points,
        slope=slope,
        slope_interval=Interval(slope - z * error, slope + z * error),
        slope_p_value=float(2 * scipy.stats.norm.sf(abs(slope) / error)),
    )


def _slope_weights(ages: int) -> Floats:
    """Of the least squares line: slope = weights @ effects."""
    centred = np.arange(ages) - (ages - 1) / 2
    weights: Floats = centred / (centred @ centred)
    return weights


def _by_age(arm: Moments) -> tuple[Floats, Floats]:
    """Ratios [ages] and their covariance [ages, ages]."""
    above, below = arm.mean[0::2], arm.mean[1::2]
    if np.any(below == 0):
        raise NotEnoughData("nobody was there on some day after first exposure")
    ratios = above / below
    gradient = np.zeros((len(ratios), len(arm.mean)))
    at = np.arange(len(ratios))
    gradient[at, 2 * at], gradient[at, 2 * at + 1] = 1 / below, -ratios / below
    covariance: Floats = gradient @ arm.covariance() @ gradient.T / arm.count
    return ratios, covariance
