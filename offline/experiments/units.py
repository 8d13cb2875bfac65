"""The readers of an experiment in each phase: when they were first exposed, to which arm, and as whom."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from offline.experiments.happened import NEVER, Happened, Mask, Numbers, Shown


class Units(msgspec.Struct, frozen=True, eq=False):
    """[n], by reader and phase: the unit of every test. Ties at the first moment go to the smaller value."""

    reader: Numbers
    phase: Numbers
    first_at: Numbers
    arm: Numbers  # the first
    arms: Numbers  # how many the reader was seen in
    signals: Numbers  # kept of the reader at first exposure
    triggered: Mask
    covariates: NDArray[np.float64]  # [n, metrics that have one]
    number: NDArray[np.int64]  # [readers, phases]: of the unit, or -1

    def of_readers(self, reader: Numbers) -> tuple[NDArray[np.intp], Numbers]:
        """Each row's units: the numbers of rows, each once for every unit of its reader, and those units."""
        pairs = []
        for of_phase in self.number.T:
            unit = of_phase[reader]
            rows = np.flatnonzero(unit >= 0)
            pairs.append((rows, unit[rows]))
        return np.concatenate([rows for rows, _ in pairs]), np.concatenate([unit for _, unit in pairs])


def find_units(found: Happened, *, only_triggered: bool) -> Units:
    shown = found.shown
    rows = np.flatnonzero(shown.inside & shown.triggered if only_triggered else shown.inside)
    phases = int(shown.phase[rows].max(initial=0)) + 1
    at = shown.reader[rows] * phases + shown.phase[rows]
    there = np.flatnonzero(np.bincount(at, minlength=len(found.readers) * phases))
    number = np.full(len(found.readers) * phases, -1)
    number[there] = np.arange(len(there))
    first_at, arm, signals = _first(shown, rows, number[at], len(there))
    seen = np.zeros((len(there), max(1, len(found.arms))), dtype=bool)
    seen[number[at], shown.arm[rows]] = True
    triggered = np.zeros(len(there), dtype=bool)
    triggered[number[at][shown.triggered[rows]]] = True
    return Units(
        reader=there // phases,
        phase=there % phases,
        first_at=first_at,
        arm=arm,
        arms=seen.sum(axis=1),
        signals=signals,
        triggered=triggered,
        covariates=_covariates(shown, rows, number[at], first_at),
        number=number.reshape(-1, phases),
    )


def _first(shown: Shown, rows: NDArray[np.intp], unit: Numbers, units: int) -> tuple[Numbers, Numbers, Numbers]:
    """[units]: time, arm and signals of the first exposure."""
    first_at, arm, signals = (np.full(units, NEVER) for _ in range(3))
    np.minimum.at(first_at, unit, shown.time[rows])
    first = shown.time[rows] == first_at[unit]
    np.minimum.at(arm, unit[first], shown.arm[rows[first]])
    np.minimum.at(signals, unit[first], shown.signals[rows[first]])
    return first_at, arm, signals


def _covariates(shown: Shown, rows: NDArray[np.intp], unit: Numbers, first_at: Numbers) -> NDArray[np.float64]:
    """[units, covariates]: of the first exposure."""
    first = shown.time[rows] == first_at[unit]
    found = np.full((len(first_at), shown.covariates.shape[1]), np.inf)
    np.minimum.at(found, unit[first], shown.covariates[rows[first]])
    return found
