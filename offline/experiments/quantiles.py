"""Quantiles over users from mergeable sketches, with an interval."""

import math
from collections.abc import Iterable
from typing import Final, Self

import msgspec
import numpy as np
import scipy  # its parts load when they are used, and no worker uses them

from offline.experiments.comparison import Interval
from offline.experiments.moments import Floats, NotEnoughData
from offline.experiments.value_counts import ValueCounts

DIGITS: Final = 4  # whole numbers below 10,000 are exact, others within 0.05 %
MIN_TAIL_USERS: Final = 10  # on the thinner side of the quantile


class QuantileEstimate(msgspec.Struct, frozen=True, kw_only=True):
    quantile: float
    value: float
    standard_error: float
    interval: Interval
    count: int  # users


class QuantileSketch:
    """How many users have each value, to four digits. One value for each user.

    A value belongs to a step by itself alone, as in DDSketch (Masson, Rim, Lee, VLDB 2019) and HdrHistogram: the same
    users give the same bytes in whatever parts they come. A sketch of random compaction (KLL, REQ) does not. It has at
    most 9,000 steps for each power of ten, and usually as many as there are different values.
    """

    def __init__(self, data: bytes | None = None) -> None:
        values, counts = np.frombuffer(data or b"", dtype=np.float64).reshape(2, -1)
        self._counts = ValueCounts(values, counts)

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        made = cls()
        made._counts = ValueCounts.of(np.fromiter(values, dtype=np.float64), digits=DIGITS)
        return made

    @property
    def count(self) -> int:
        return int(self._counts.counts.sum())

    def __add__(self, other: Self) -> Self:
        made = type(self)()
        made._counts = self._counts + other._counts
        return made

    def to_bytes(self) -> bytes:
        return self._counts.values.tobytes() + self._counts.counts.tobytes()

    def estimate(self, quantile: float, *, alpha: float = 0.05) -> QuantileEstimate:
        """The quantile with Woodruff's interval (JASA 47, 1952): the values at the ranks that chance allows.

        The standard error is the interval's half width by its normal score. Raises NotEnoughData in thin tails.
        """
        count = self.count
        if count * min(quantile, 1 - quantile) < MIN_TAIL_USERS:
            raise NotEnoughData(f"{count} users are too few for the {quantile:g} quantile")
        score = float(scipy.stats.norm.ppf(1 - alpha / 2))
        reach = score * math.sqrt(quantile * (1 - quantile) / count)
        value, low, high = self._values(np.clip([quantile, quantile - reach, quantile + reach], 0, 1))
        return QuantileEstimate(
            quantile=quantile,
            value=value,
            standard_error=(high - low) / (2 * score),
            interval=Interval(low, high),
            count=count,
        )

    def _values(self, ranks: Floats) -> list[float]:
        """Of the mid-distribution (Ma, Genton, Parzen: Sample quantiles of discrete distributions, AISM 63, 2011).

        Its inverse, linear between the middles of the steps, is the usual quantile where values do not tie, and moves
        smoothly where they do: the median of a count jumps by whole numbers, which no standard error describes.
        """
        above = np.cumsum(self._counts.counts)
        middles = (above - self._counts.counts / 2) / above[-1]
        found: list[float] = np.interp(ranks, middles, self._counts.values).tolist()
        return found
