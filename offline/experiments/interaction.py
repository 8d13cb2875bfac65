"""Is the effect another one for these readers than for those? One significant segment beside one that is not is no
answer: what is tested here is the difference of the two effects (Gelman, Stern, The American Statistician 60, 2006).

Relative effects are compared where both are known. A path that brings everybody a tenth more clicks has a larger
absolute effect on those who click more, and that would be called a difference between readers.
"""

import math
from typing import Literal

import msgspec

from offline.experiments.comparison import Interval, difference, log_ratio
from offline.experiments.estimates import Estimate
from offline.experiments.moments import NotEnoughData

Scale = Literal["relative", "absolute"]


class Interaction(msgspec.Struct, frozen=True, kw_only=True):
    """Of two segments. relative: (1 + lift of the first) by (1 + lift of the second), minus 1; absolute: the first
    difference minus the second, where a lift is refused."""

    scale: Scale
    value: float
    interval: Interval
    p_value: float  # of no difference on this scale


class Effect(msgspec.Struct, frozen=True):
    """Of one segment."""

    control: Estimate
    treatment: Estimate


def interaction(first: Effect, second: Effect, *, alpha: float = 0.05) -> Interaction:
    """Raises NotEnoughData when an effect has no error."""
    try:
        relative = difference(_relative(second), _relative(first), alpha=alpha)
    except NotEnoughData:
        apart = difference(_absolute(second), _absolute(first), alpha=alpha)
        return Interaction(scale="absolute", value=apart.value, interval=apart.interval, p_value=apart.p_value)
    low, high = relative.interval.low, relative.interval.high
    return Interaction(
        scale="relative",
        value=math.expm1(relative.value),
        interval=Interval(math.expm1(low), math.expm1(high)),
        p_value=relative.p_value,
    )


def _relative(effect: Effect) -> Estimate:
    return log_ratio(effect.control, effect.treatment)


def _absolute(effect: Effect) -> Estimate:
    found = difference(effect.control, effect.treatment)
    count = round(found.degrees) + 1  # so that Welch's degrees of freedom are kept
    return Estimate(value=found.value, variance=found.standard_error**2, count=count, unadjusted=found.value)
