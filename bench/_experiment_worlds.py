"""Readers for the calibration, drawn in vectors: heavy-tailed, alike within themselves, with effects that are known."""

import math
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from offline.experiments.moments import Floats, Moments
from offline.experiments.tally import Cell, CellKey

Generator = np.random.Generator
Mask = NDArray[np.bool_]

ACTIVITY: Final = 0.8  # standard deviation of the logarithm of how often a reader is shown something
IMPRESSIONS: Final = 8.0  # mean of the places shown to a reader, beyond the first
TASTE: Final = 0.1  # mean click rate of a reader of mean activity
BORED: Final = 0.3  # who is shown more clicks a smaller part: taste falls with activity to this power
COLD_SHARE: Final = 0.25
COLD_TASTE: Final = 0.6  # of cold readers, by that of the others


class Readers(msgspec.Struct, frozen=True, eq=False):
    """`rows` [n, 4]: clicks and impressions, now and before; cold readers have none before."""

    rows: Floats
    cold: Mask

    def clicks(self) -> Floats:
        """[n, 4] of the mean metric: clicks of each reader, now and before."""
        made = self.rows.copy()
        made[:, [1, 3]] = 1.0
        return made

    def clicked(self) -> Floats:
        """[n, 4] of the proportion: readers with a click, now and before."""
        made = np.minimum(self.rows, 1.0)
        made[:, [1, 3]] = 1.0
        return made


def draw_readers(
    drawn: Generator, count: int, *, lift: float = 0.0, base: float = 1.0, cold_share: float = COLD_SHARE
) -> Readers:
    """Click rates are gamma over readers, activity lognormal; `lift` multiplies the click rate of each."""
    cold = drawn.random(count) < cold_share
    activity = np.exp(drawn.normal(-(ACTIVITY**2) / 2, ACTIVITY, count))
    rate = drawn.gamma(2.0, TASTE / 2, count) * activity**-BORED * np.where(cold, COLD_TASTE, 1.0) * base
    shown = drawn.poisson(IMPRESSIONS * activity) + 1
    before = np.where(cold, 0, drawn.poisson(IMPRESSIONS * activity) + 1)
    clicks, past = drawn.poisson(rate * shown * (1 + lift)), drawn.poisson(rate * before)
    return Readers(np.column_stack([clicks, shown, past, before]).astype(float), cold)


def mean_clicks(lift: float = 0.0, cold_share: float = COLD_SHARE) -> float:
    """Expected clicks of one reader, from the moments of the lognormal."""
    shown = _power(-BORED) + IMPRESSIONS * _power(1 - BORED)
    return TASTE * shown * (1 + lift) * (1 - cold_share + COLD_TASTE * cold_share)


def click_rate(lift: float = 0.0, cold_share: float = COLD_SHARE) -> float:
    """Expected clicks by expected impressions."""
    return mean_clicks(lift, cold_share) / (1 + IMPRESSIONS)


def _power(exponent: float) -> float:
    """E[activity^exponent] of a lognormal with mean 1."""
    return math.exp(exponent * (exponent - 1) * ACTIVITY**2 / 2)


def cells_of(rows: Floats, cold: Mask, arm: str, *, day: int = 0, phase: int = 0) -> dict[CellKey, Cell]:
    """The readers of one arm and day as cells with one metric."""
    found = {}
    for is_cold in (False, True):
        own = rows[cold == is_cold]
        if len(own):
            key = CellKey(phase, day, arm, is_cold)
            found[key] = Cell(exposed=len(own), capped=(0,), moments=(Moments.of(own),), sketches=(None,))
    return found
