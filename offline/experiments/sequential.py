"""Looking at an experiment more than once: group sequential bounds for planned looks, confidence sequences for any.

Both are statements about the same difference: a bound on its z score at a look, or an interval that holds at all times.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec
import numpy as np
from scipy import optimize, stats

from offline.experiments.comparison import Interval
from offline.experiments.moments import Floats, NotEnoughData

Spending = Literal["obrien-fleming", "pocock"]

_REACH: Final = 9.0  # standard errors of the grid beyond the widest bound of use
_STEP: Final = 0.02  # of the grid: the textbook bounds come out to three decimals


def spent(spending: Spending, fraction: float, alpha: float) -> float:
    """Two-sided alpha spent by the information fraction. Lan, DeMets: Discrete sequential boundaries, Biometrika 70."""
    at = min(1.0, fraction)
    if at <= 0:
        return 0.0
    if spending == "pocock":
        return alpha * math.log(1 + (math.e - 1) * at)
    # spent on each side by itself, the two sides added, as gsDesign and ldbounds do
    return float(4 * stats.norm.sf(stats.norm.isf(alpha / 4) / math.sqrt(at)))


def boundaries(
    fractions: Sequence[float], *, alpha: float = 0.05, spending: Spending = "obrien-fleming"
) -> list[float]:
    """For each look the bound on |z| at which it stops, given the information fractions of all looks so far.

    The recursion of Armitage, McPherson, Rowe (JRSS A 132, 1969): the density of the statistic among those that have
    not stopped is carried from look to look. Fractions must grow; what lies beyond 1 spends nothing more.
    """
    if not fractions or any(b <= a for a, b in zip([0.0, *fractions], fractions, strict=False)):
        raise NotEnoughData("the information fractions must be positive and growing")
    found: list[float] = []
    walk = _Walk()
    before = 0.0
    for fraction in fractions:
        now = spent(spending, fraction, alpha)
        walk.advance(fraction)
        found.append(walk.stop(now - before))
        before = now
    return found


class _Walk:
    """Brownian motion on [0, 1], stopped when it leaves the bounds: its density on a grid."""

    def __init__(self) -> None:
        self._time = 0.0
        self._grid: Floats = np.zeros(1)
        self._mass: Floats = np.ones(1)

    def advance(self, time: float) -> None:
        spread = math.sqrt(time - self._time)
        reach = _REACH * math.sqrt(time)
        step = _STEP * math.sqrt(min(time, time - self._time))
        grid = np.arange(-reach, reach + step, step)
        densities = stats.norm.pdf((grid[:, None] - self._grid[None, :]) / spread) / spread
        self._mass, self._grid, self._time = densities @ self._mass * step, grid, time

    def stop(self, alpha: float) -> float:
        """The bound that lets `alpha` out now, on the scale of z; what is out is gone."""
        if alpha <= 0:
            return math.inf
        scale = math.sqrt(self._time)
        outside: Callable[[float], float] = lambda bound: self._outside(bound * scale) - alpha  # noqa: E731
        bound = float(optimize.brentq(outside, 0.0, _REACH))
        kept = np.abs(self._grid) <= bound * scale
        self._grid, self._mass = self._grid[kept], self._mass[kept]
        return bound

    def _outside(self, bound: float) -> float:
        """Mass beyond `bound`, the grid's cumulative mass interpolated so that it is smooth in `bound`."""
        total = np.cumsum(self._mass)
        within = np.interp(bound, self._grid, total) - np.interp(-bound, self._grid, total)
        return float(total[-1] - within)


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """One planned look."""

    fraction: float
    z: float
    bound: float
    interval: Interval  # repeated confidence interval (Jennison, Turnbull 1989)
    stops: bool


def look(
    difference: float,
    standard_error: float,
    fractions: Sequence[float],
    *,
    alpha: float = 0.05,
    spending: Spending = "obrien-fleming",
) -> Look:
    """The last of the looks at `fractions`."""
    if standard_error <= 0:
        raise NotEnoughData("no variation in either arm")
    bound = boundaries(fractions, alpha=alpha, spending=spending)[-1]
    z, reach = difference / standard_error, bound * standard_error
    interval = Interval(difference - reach, difference + reach)
    return Look(fraction=fractions[-1], z=z, bound=bound, interval=interval, stops=abs(z) >= bound)


def confidence_sequence(
    difference: float, standard_error: float, users: int, *, alpha: float = 0.05, tuned_for: int = 5_000
) -> Interval:
    """An interval that covers the true difference at all looks at once with 1 - alpha, asymptotically.

    Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas: Time-uniform central limit theory and asymptotic confidence sequences,
    Annals of Statistics 52 (2024), theorem 2.2: with t = users and the variance of one observation s^2 = t se^2 the
    half width is s sqrt(2 (t r^2 + 1) / (t^2 r^2) log(sqrt(t r^2 + 1) / alpha)). `tuned_for` users it is the tightest.
    """
    if users < 2 or standard_error <= 0:
        raise NotEnoughData("no variation, or fewer than two users")
    log_alpha = -2 * math.log(alpha)
    rho = (log_alpha + math.log(log_alpha + 1)) / tuned_for  # r^2, equation 27 of the same paper
    grown = users * rho + 1
    half = standard_error * math.sqrt(2 * grown / (users * rho) * math.log(math.sqrt(grown) / alpha))
    return Interval(difference - half, difference + half)
