"""The one addable statistic: count, means and centred products of a few columns over users.

Chan, Golub, LeVeque: Algorithms for computing the sample variance, The American Statistician 37 (1983). Centred
products instead of raw sums of squares: those cancel to negative variances on data far from zero (NIST StRD, NumAcc4).
"""

from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.errors import KeenstreamError

Floats = NDArray[np.float64]


class NotEnoughData(KeenstreamError):
    """The statistic is not defined for these data; the message says why. A report prints it in the figure's place."""


class Moments(msgspec.Struct, frozen=True, eq=False):
    """Of `count` users, each with one row of d columns."""

    count: int
    mean: Floats  # [d]
    products: Floats  # [d, d]: sum over users of (x - mean)(x - mean)'

    @classmethod
    def zero(cls, columns: int) -> Self:
        return cls(0, np.zeros(columns), np.zeros((columns, columns)))

    @classmethod
    def of(cls, rows: Floats) -> Self:
        """`rows` is [n, d], one row for each user."""
        values = np.asarray(rows, dtype=np.float64)
        if not len(values):
            return cls.zero(values.shape[1])
        mean = values.mean(axis=0)
        centred = values - mean
        return cls(len(values), mean, centred.T @ centred)

    def __add__(self, other: Self) -> Self:
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        step = other.mean - self.mean
        mean = self.mean + step * (other.count / count)
        apart = np.outer(step, step) * (self.count * other.count / count)
        return type(self)(count, mean, self.products + other.products + apart)

    def covariance(self) -> Floats:
        """[d, d], unbiased. Raises NotEnoughData for fewer than two users."""
        if self.count < 2:
            raise NotEnoughData(f"{self.count} users: a variance needs two")
        return self.products / (self.count - 1)


def added(first: Mapping[str, Moments], second: Mapping[str, Moments]) -> dict[str, Moments]:
    """By name, each the sum of both."""
    found = dict(first)
    for name, moments in second.items():
        found[name] = found[name] + moments if name in found else moments
    return found


def moments_by(names: NDArray[np.object_], rows: Floats) -> dict[str, Moments]:
    """By name, of its rows [n, d]."""
    return {str(name): Moments.of(rows[names == name]) for name in sorted(set(names.tolist()))}


def merged(parts: Iterable[Moments], columns: int) -> Moments:
    """The sum of all parts, in any order and grouping up to rounding."""
    return reduce(Moments.__add__, parts, Moments.zero(columns))
