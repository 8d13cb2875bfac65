"""How the log was delivered, by arm: outcomes that came late, lost their exposure or their click, or are misdated.

A figure that one arm loses more of than the other is an effect of the log and not of the path. Sums over readers, so
that the test has the reader as its unit, as every other test here.
"""

from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from offline.experiments.encoding import CODES
from offline.experiments.estimates import Estimate, plain
from offline.experiments.happened import NEVER, Happened, Mask, key
from offline.experiments.log_columns import Column
from offline.experiments.moments import Moments, NotEnoughData, moments_by
from offline.experiments.units import Units

ARRIVAL: Final = "arrived_at"  # when an outcome reached the log; a column that not every log has

# Counts of one reader's outcomes.
COLUMNS: Final = ("timed", "late", "dwells", "clickless", "named", "unmatched", "matched", "early")


class Delivered(msgspec.Struct, frozen=True, eq=False):
    """What a bucket's outcomes tell. Addable but for `early`, which goes to the quarantine."""

    arms: dict[str, Moments]  # of COLUMNS, over readers
    early: pa.Table  # outcomes dated before their exposure, columns as in schemas/exposure.py


def arrival_column(source: str) -> Column:
    """Null in a log that does not have it."""
    return Column(name=ARRIVAL, type="time", source=source, required=False, nullable=True)


def trace_outcomes(
    found: Happened, units: Units, sound: Mask, outcomes: pa.Table, *, window_ms: int, late_ms: int
) -> Delivered:
    """Outcomes in the windows of the `sound` units; `outcomes` are the coded rows that `found` was made of."""
    done = found.done
    rows, unit = units.of_readers(done.reader)
    time = np.where(done.request >= 0, done.answered, done.time)  # its exposure's where that is known
    age = time[rows] - units.first_at[unit]
    kept = sound[unit] & (age >= 0) & (age <= window_ms)
    there, at = np.unique(unit[kept], return_inverse=True)
    marks = np.stack(_marks(found, late_ms), axis=1)[rows[kept]]
    sums = np.stack([np.bincount(at, mark, len(there)) for mark in marks.T], axis=1)
    arms = np.asarray(found.arms.to_pylist(), dtype=object)[units.arm[there]]
    return Delivered(moments_by(arms, sums.astype(np.float64)), _early_rows(found, outcomes))


def _marks(found: Happened, late_ms: int) -> list[Mask]:
    """Of COLUMNS [outcomes]."""
    done, kinds = found.done, found.kinds.to_pylist()
    click, dwell = (done.kind == (kinds.index(kind) if kind in kinds else -1) for kind in ("click", "dwell"))
    matched, timed = done.request >= 0, done.arrived != NEVER
    places = key(done.request, done.article)
    clicked = np.isin(places, places[click & matched & done.named]) & done.named
    late = timed & (done.arrived - done.time > late_ms)
    dwells, unmatched = matched & dwell, done.requested & ~matched
    return [timed, late, dwells, dwells & ~clicked, done.requested, unmatched, matched, done.early]


def _early_rows(found: Happened, outcomes: pa.Table) -> pa.Table:
    """All that were dated before their exposure, repeated ones too."""
    ids = outcomes["outcome"].take(pa.array(found.done.row[found.done.early]))
    rows = outcomes.filter(pc.is_in(outcomes["outcome"], ids.combine_chunks()))
    return rows.drop_columns(list(CODES)).sort_by([("outcome_id", "ascending"), ("occurred_at", "ascending")])


def share(arm: Moments | None, part: str, whole: str) -> Estimate:
    """Total by total over readers. Raises NotEnoughData where there is no such outcome."""
    if arm is None or not arm.count:
        raise NotEnoughData("no outcomes")
    at = [COLUMNS.index(part), COLUMNS.index(whole)] * 2
    return plain(Moments(arm.count, arm.mean[at], arm.products[np.ix_(at, at)]), ratio=True)
