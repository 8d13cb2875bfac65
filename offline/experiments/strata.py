"""One metric in two arms: adjusted by history, weighted over strata, so that phases and cold readers cannot mislead."""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np

from offline.experiments.definition import Metric
from offline.experiments.estimates import DENOMINATOR, Estimate, cuped, plain, post_stratified
from offline.experiments.moments import Moments, NotEnoughData
from offline.experiments.quantiles import QuantileSketch
from offline.experiments.tally import Cell, CellKey, Tally

MIN_STRATUM_USERS: Final = 50  # in each arm; smaller strata join another

Wanted = Callable[[CellKey], bool]


class Pair(msgspec.Struct, frozen=True, eq=False):
    control: Estimate
    treatment: Estimate


class _Stratum(msgspec.Struct, eq=False):
    control: Cell
    treatment: Cell

    def users(self, number: int) -> tuple[int, int]:
        return _users(self.control, number), _users(self.treatment, number)


def estimate_pair(tally: Tally, metric: Metric, number: int, arms: tuple[str, str], wanted: Wanted) -> Pair:
    """`arms` are control and treatment; `wanted` picks the cells (a segment, the days so far).

    Strata are phase x cold: weights differ between phases (pooled arms can reverse an effect, Simpson), and cold
    readers have no history for CUPED. A ratio's strata weigh by their denominators, so that the estimand stays total by
    total. Raises NotEnoughData.
    """
    if metric.quantile is not None:
        return _quantile_pair(tally, metric.quantile, number, arms, wanted)
    strata = _strata(tally, number, arms, wanted)
    pairs = [_stratum_pair(stratum, metric, number) for stratum in strata]
    shares = _shares(strata, metric, number)
    return Pair(
        post_stratified([pair.control for pair in pairs], shares),
        post_stratified([pair.treatment for pair in pairs], shares),
    )


def history_pair(tally: Tally, metric: Metric, number: int, arms: tuple[str, str], wanted: Wanted) -> Pair:
    """The same metric before the experiment, where no difference can be of its making."""
    cells = [tally.total(lambda key, arm=arm: key.arm == arm and wanted(key)) for arm in arms]  # type: ignore[misc]
    found = [plain(_history(cell, number), ratio=metric.denominator is not None) for cell in cells]
    return Pair(*found)


def _strata(tally: Tally, number: int, arms: tuple[str, str], wanted: Wanted) -> list[_Stratum]:
    """Too small a stratum joins the other one of its phase; only too small a phase joins the largest stratum of all.

    Phases are kept apart as long as possible: joining two of them mixes the weights that they differ by.
    """
    keys = sorted({(key.phase, key.cold) for key in tally.cells if wanted(key)})
    phases = sorted({phase for phase, _ in keys})
    by_phase = [
        _joined([_stratum(tally, key, arms, wanted) for key in keys if key[0] == phase], number) for phase in phases
    ]
    strata = _joined([stratum for own in by_phase for stratum in own], number)
    if not strata:
        raise NotEnoughData("no users")
    return strata


def _joined(strata: Sequence[_Stratum], number: int) -> list[_Stratum]:
    """Those with fewer than MIN_STRATUM_USERS in an arm become part of the largest one."""
    kept: list[_Stratum] = []
    for stratum in sorted(strata, key=lambda one: -sum(one.users(number))):
        if kept and min(stratum.users(number)) < MIN_STRATUM_USERS:
            kept[0] = _Stratum(kept[0].control + stratum.control, kept[0].treatment + stratum.treatment)
        else:
            kept.append(stratum)
    return kept


def _stratum(tally: Tally, key: tuple[int, bool], arms: tuple[str, str], wanted: Wanted) -> _Stratum:
    def cell(arm: str) -> Cell:
        return tally.total(lambda at: (at.phase, at.cold) == key and at.arm == arm and wanted(at))

    return _Stratum(cell(arms[0]), cell(arms[1]))


def _stratum_pair(stratum: _Stratum, metric: Metric, number: int) -> Pair:
    if min(stratum.users(number)) < 2:
        raise NotEnoughData("fewer than two users in an arm")
    both = [stratum.control.moments[number], stratum.treatment.moments[number]]
    ratio = metric.denominator is not None
    return Pair(*(cuped(both, ratio=ratio) if metric.cuped else [plain(arm, ratio=ratio) for arm in both]))


def _shares(strata: Sequence[_Stratum], metric: Metric, number: int) -> list[float]:
    column = DENOMINATOR if metric.denominator is not None else None
    sizes = [sum(_size(cell.moments[number], column) for cell in (s.control, s.treatment)) for s in strata]
    if sum(sizes) == 0:
        raise NotEnoughData("the denominator is zero for all users")
    return [size / sum(sizes) for size in sizes]


def _size(moments: Moments, column: int | None) -> float:
    return float(moments.count if column is None else moments.count * moments.mean[column])


def _history(cell: Cell, number: int) -> Moments:
    if not cell.moments:
        raise NotEnoughData("no users")
    moments, order = cell.moments[number], [2, 3, 2, 3]
    return Moments(moments.count, moments.mean[order], moments.products[np.ix_(order, order)])


def _quantile_pair(tally: Tally, quantile: float, number: int, arms: tuple[str, str], wanted: Wanted) -> Pair:
    found = []
    for arm in arms:
        cell = tally.total(lambda key, arm=arm: key.arm == arm and wanted(key))  # type: ignore[misc]
        sketch = cell.sketches[number] if cell.sketches else None
        if sketch is None:
            raise NotEnoughData("no users")
        at = QuantileSketch(sketch).estimate(quantile)
        found.append(Estimate(value=at.value, variance=at.standard_error**2, count=at.count, unadjusted=at.value))
    return Pair(*found)


def _users(cell: Cell, number: int) -> int:
    return cell.moments[number].count if cell.moments else 0
