"""Quantiles over users from mergeable sketches, with an interval."""

import math
from collections.abc import Iterable
from typing import Self

import msgspec
import numpy as np
from datasketches import kll_doubles_sketch
from scipy import stats

from offline.experiments.comparison import Interval
from offline.experiments.moments import NotEnoughData

_SIZE = 800  # of the sketch: rank error 0.4 % with 99 % confidence, about 8 kB
MIN_TAIL_USERS = 10  # on the thinner side of the quantile


class QuantileEstimate(msgspec.Struct, frozen=True, kw_only=True):
    quantile: float
    value: float
    standard_error: float
    interval: Interval
    count: int  # users


class QuantileSketch:
    """KLL (Karnin, Lang, Liberty: Optimal Quantile Approximation in Streams, FOCS 2016), one value for each user."""

    def __init__(self, data: bytes | None = None) -> None:
        self._sketch = kll_doubles_sketch.deserialize(data) if data else kll_doubles_sketch(_SIZE)

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        made = cls()
        made._sketch.update(np.fromiter(values, dtype=np.float64))  # a hundred times faster than one by one
        return made

    @property
    def count(self) -> int:
        return int(self._sketch.n)

    def __add__(self, other: Self) -> Self:
        made = type(self)(self.to_bytes())
        made._sketch.merge(other._sketch)
        return made

    def to_bytes(self) -> bytes:
        return bytes(self._sketch.serialize())

    def estimate(self, quantile: float, *, alpha: float = 0.05) -> QuantileEstimate:
        """The quantile with Woodruff's interval (JASA 47, 1952): the values at the ranks that the binomial allows.

        The standard error is that interval's half width by its normal score. Raises NotEnoughData in thin tails.
        """
        count = self.count
        if count * min(quantile, 1 - quantile) < MIN_TAIL_USERS:
            raise NotEnoughData(f"{count} users are too few for the {quantile:g} quantile")
        score = float(stats.norm.ppf(1 - alpha / 2))
        reach = score * math.sqrt(quantile * (1 - quantile) / count)
        low, high = (self._value(max(0.0, min(1.0, quantile + side * reach))) for side in (-1, 1))
        return QuantileEstimate(
            quantile=quantile,
            value=self._value(quantile),
            standard_error=(high - low) / (2 * score),
            interval=Interval(low, high),
            count=count,
        )

    def _value(self, rank: float) -> float:
        return float(self._sketch.get_quantile(rank))
