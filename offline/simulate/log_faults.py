"""Faults planted in the log of a simulated experiment, and how many of each there really are."""

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from offline.simulate.log_readers import Flags, Floats, Ints, LogReaders, Visits, first_visits
from offline.simulate.log_settings import LogFaults
from schemas.archive import ARRIVED

_HOUR_MS = 3_600_000
_LAG_MS = 600_000  # a clock that is ten minutes slow


class Planted(msgspec.Struct, frozen=True, kw_only=True):
    """Counted in what was written. Addable. A unit is a reader in a phase."""

    exposures: int = 0  # rows, with repeated and anonymous ones
    outcomes: int = 0
    units: int = 0  # with an exposure in the experiment
    bots: int = 0  # units
    crossovers: int = 0  # units
    misassigned: int = 0  # units
    lost: int = 0  # units of the treatment that the log lacks
    duplicate_exposures: int = 0  # rows, as all below
    duplicate_outcomes: int = 0
    late_outcomes: int = 0
    lost_clicks: int = 0  # that the log lacks
    negative_lags: int = 0
    anonymous_exposures: int = 0
    anonymous_outcomes: int = 0

    def __add__(self, other: "Planted") -> "Planted":
        return Planted(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


class PlantedVisits(msgspec.Struct, frozen=True, eq=False):
    visits: Visits  # without the lost ones
    crossed: Flags  # [v]: logged in the other arm than the reader's
    planted: Planted


def plant_in_visits(visits: Visits, readers: LogReaders, faults: LogFaults, rng: np.random.Generator) -> PlantedVisits:
    """Bots, broken arms and lost readers are matters of whole readers."""
    phases, count = readers.treated.shape
    gone = (visits.phase >= 0) & readers.lost[np.maximum(visits.phase, 0), visits.reader]
    kept = Visits(reader=visits.reader[~gone], at_ms=visits.at_ms[~gone], phase=visits.phase[~gone])
    chosen = rng.random((phases, count)) < faults.crossovers
    crossed = np.zeros(len(kept.reader), dtype=bool)
    planted = Planted()
    for phase in range(phases):
        inside = kept.phase == phase
        first = first_visits(kept, count, phase)
        again = inside & chosen[phase, kept.reader] & (kept.at_ms > first[kept.reader])
        crossed |= again
        planted += Planted(
            units=int((first >= 0).sum()),
            bots=int((readers.bot & (first >= 0)).sum()),
            crossovers=len(np.unique(kept.reader[again])),
            misassigned=int((readers.misassigned & (first >= 0)).sum()),
            lost=len(np.unique(visits.reader[gone & (visits.phase == phase)])),
        )
    return PlantedVisits(kept, crossed, planted)


def delay_arrival(happened_ms: Ints, share: float | Floats, hours: float, rng: np.random.Generator) -> tuple[Ints, int]:
    """[n]: when each row reaches the log (UTC ms), within two seconds unless late; and how many are late."""
    late = rng.random(len(happened_ms)) < share
    usual = rng.integers(1, 2_000, len(happened_ms))
    # late by at least an hour, or by half of a shorter bound
    least = min(1.0, hours / 2)
    delay = ((least + rng.random(len(happened_ms)) * (hours - least)) * _HOUR_MS).astype(np.int64)
    return happened_ms + np.where(late, delay, usual), int(late.sum())


def turn_back(clicked_ms: Ints, shown_ms: Ints, share: float, rng: np.random.Generator) -> tuple[Ints, Flags]:
    """[n]: times of clicks, a share of them before their exposure; and which."""
    wrong: Flags = rng.random(len(clicked_ms)) < share
    return np.where(wrong, shown_ms - _LAG_MS, clicked_ms), wrong


def lost_clicks(treated: Flags, share: float, rng: np.random.Generator) -> Flags:
    """[n]: which clicks are not logged, a share of those of the treatment."""
    lost: Flags = treated & (rng.random(len(treated)) < share) if share else np.zeros(len(treated), dtype=bool)
    return lost


def late_shares(outcomes: pa.Table, treated: pa.Array, faults: LogFaults) -> Floats:
    """[n]: with which each outcome is late; `treated` are the requests of the treatment."""
    if not faults.late_treatment:
        return np.full(outcomes.num_rows, faults.late)
    slow = pc.is_in(outcomes["request_id"], treated).to_numpy(zero_copy_only=False)
    found: Floats = 1 - (1 - faults.late) * np.where(slow, 1 - faults.late_treatment, 1.0)
    return found


def repeat_rows(table: pa.Table, share: float, rng: np.random.Generator) -> tuple[pa.Table, int]:
    """The table and a share of its rows once more at its end: an at-least-once producer's second try."""
    again = np.flatnonzero(rng.random(table.num_rows) < share)
    if not len(again):
        return table, 0
    second = table.take(pa.array(again))
    arrived = second.column_names.index(ARRIVED)
    delay = pa.array(rng.integers(1, 60_000, len(again)))
    second = second.set_column(arrived, table.schema.field(ARRIVED), pc.add(second[ARRIVED], delay))
    return pa.concat_tables([table, second]), len(again)


def add_anonymous(table: pa.Table, id_column: str, share: float, rng: np.random.Generator) -> tuple[pa.Table, int]:
    """The table and, at its end, copies of some rows with ids of their own and no reader: null and empty in turns."""
    chosen = np.flatnonzero(rng.random(table.num_rows) < share)
    if not len(chosen):
        return table, 0
    extra = table.take(pa.array(chosen))
    extra = _renamed(_renamed(extra, id_column), "request_id")
    at = extra.column_names.index("user_id")
    nobody = pa.array([None if n % 2 else "" for n in range(len(chosen))], pa.string())
    return pa.concat_tables([table, extra.set_column(at, table.schema.field("user_id"), nobody)]), len(chosen)


def _renamed(table: pa.Table, column: str) -> Any:
    at = table.column_names.index(column)
    names = pc.binary_join_element_wise("anonymous", table[column], "-")
    return table.set_column(at, table.schema.field(column), names)
