"""Looking at an experiment more than once: group sequential bounds for planned looks, confidence sequences for any.

Both are statements about the same difference: a bound on its z score at a look, or an interval that holds at all times.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final, Literal

import msgspec
import numpy as np
from scipy import optimize, special, stats

from offline.experiments.comparison import Interval
from offline.experiments.moments import Floats, NotEnoughData

Spending = Literal["obrien-fleming", "pocock"]

_REACH: Final = 9.0  # standard errors: the widest bound, which 1e-18 is beyond; a finite one fits into JSON
_FEWEST_NODES, _NODES_PER_SPREAD = 60, 3  # of the quadrature, by the standard deviation of one step


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


def chance_of_stopping(fractions: Sequence[float], bounds: Sequence[float], drift: float) -> float:
    """That |z| is beyond its bound at one of the looks, when z has the mean `drift` at the fraction 1 (the effect by
    its error there): the power of a design, by the same recursion."""
    walk = _Walk(drift)
    stopped = 0.0
    for fraction, bound in zip(fractions, bounds, strict=True):
        walk.advance(fraction)
        stopped += walk.leave(bound)
    return stopped


class _Walk:
    """Brownian motion on [0, 1], stopped when it leaves the bounds: its density at Gauss-Legendre nodes within them.

    The bounds cut the density off; nodes between them keep the quadrature exact where a fixed grid would not be.
    """

    def __init__(self, drift: float = 0.0) -> None:
        self._drift = drift
        self._time = self._spread = self._shift = 0.0
        self._nodes: Floats = np.zeros(1)
        self._mass: Floats = np.ones(1)  # at each node, its quadrature weight included

    def advance(self, time: float) -> None:
        self._shift = self._drift * (time - self._time)
        self._spread, self._time = math.sqrt(time - self._time), time

    def stop(self, alpha: float) -> float:
        """The bound that lets `alpha` out now, on the scale of z; what is out is gone."""
        scale = math.sqrt(self._time)
        outside: Callable[[float], float] = lambda bound: self._outside(bound * scale) - alpha  # noqa: E731
        bound = float(optimize.brentq(outside, 0.0, _REACH)) if outside(_REACH) < 0 else _REACH
        self._keep(bound * scale)
        return bound

    def leave(self, bound: float) -> float:
        """What is beyond the bound on |z| now, and gone with it."""
        scaled = bound * math.sqrt(self._time)
        out = self._outside(scaled)
        self._keep(scaled)
        return out

    def _outside(self, bound: float) -> float:
        centre = self._nodes + self._shift
        above, below = (bound - centre) / self._spread, (-bound - centre) / self._spread
        return float(self._mass @ (special.ndtr(-above) + special.ndtr(below)))

    def _keep(self, bound: float) -> None:
        spreads = 2 * bound / self._spread
        roots, weights = _legendre(_FEWEST_NODES * (1 + math.ceil(_NODES_PER_SPREAD * spreads / _FEWEST_NODES)))
        nodes = bound * roots
        steps = (nodes[:, None] - self._nodes[None, :] - self._shift) / self._spread
        density = np.exp(-(steps**2) / 2) @ self._mass / (self._spread * math.sqrt(2 * math.pi))
        self._nodes, self._mass = nodes, density * bound * weights


@cache
def _legendre(count: int) -> tuple[Floats, Floats]:
    """Roots and weights on [-1, 1]; counts are multiples of _FEWEST_NODES, so that few are ever computed."""
    roots, weights = special.roots_legendre(count)
    return roots, weights


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
