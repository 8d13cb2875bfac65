"""Values counted one by one: what caps and quantiles are read from, the same whatever the parts of a log."""

from typing import Self

import msgspec
import numpy as np

from offline.experiments.moments import Floats


class ValueCounts(msgspec.Struct, frozen=True, eq=False):
    """How many users have each value. Addable: in any order and grouping, to the last bit."""

    values: Floats  # [n], rising
    counts: Floats  # [n], whole numbers

    @classmethod
    def of(cls, values: Floats, *, digits: int) -> Self:
        """Values [n] of more `digits` are rounded to so many: an error of at most half a step of the last."""
        found, counts = np.unique(_rounded(values, digits), return_counts=True)
        return cls(found, counts.astype(np.float64))

    def __add__(self, other: Self) -> Self:
        values, at = np.unique(np.concatenate([self.values, other.values]), return_inverse=True)
        counts: Floats = np.bincount(at, weights=np.concatenate([self.counts, other.counts])).astype(np.float64)
        return type(self)(values, counts)

    def quantile(self, share: float) -> float | None:
        """The smallest value that at least `share` of the users do not exceed; None without users."""
        if not len(self.values):
            return None
        reached = np.cumsum(self.counts) >= share * self.counts.sum()
        return float(self.values[np.argmax(reached)])


def _rounded(values: Floats, digits: int) -> Floats:
    scale = np.ones_like(values)
    large = np.abs(values) >= 10**digits
    scale[large] = 10.0 ** (np.floor(np.log10(np.abs(values[large]))) - digits + 1)
    fine = ~large & (values != np.round(values))
    scale[fine] = 10.0 ** (np.floor(np.log10(np.abs(values[fine]))) - digits + 1)
    rounded: Floats = np.round(values / scale) * scale
    return rounded
