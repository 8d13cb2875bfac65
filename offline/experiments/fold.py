"""All rows of some users, folded to one row for each user and phase: the unit of every test that follows.

Pure: two Arrow tables in, one out, the same whatever the order of rows and however often a row is repeated. The work is
done in vectors, over a bucket of users that fits in memory.
"""

from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from offline.experiments.counting import DAY_MS, Follower
from offline.experiments.definition import Analysis, Count, Metric
from offline.experiments.delivery import Delivered, trace_outcomes
from offline.experiments.happened import Happened, Mask, happened
from offline.experiments.moments import Floats, Moments
from offline.experiments.novelty import age_moments, cohort_ages, follows
from offline.experiments.place_counts import count_places
from offline.experiments.recall_path import RecallPath
from offline.experiments.units import Units, find_units

_HOUR_MS: Final = 3_600_000


class FoldCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that a bucket held, and those that did not count. Addable."""

    exposures: int = 0
    repeated_exposures: int = 0
    outcomes: int = 0
    repeated_outcomes: int = 0
    unmatched_outcomes: int = 0  # they name a request that the log does not hold; counted like the others
    outcomes_before_exposure: int = 0  # a clock is wrong: left out, and in the quarantine

    def __add__(self, other: "FoldCounts") -> "FoldCounts":
        return FoldCounts(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


class Folded(msgspec.Struct, frozen=True, eq=False):
    """`users`: one row for each user and phase, sorted: user_id, phase, arm, arms (how many the user was seen in),
    first_at, day (since the experiment's start), cold, triggered, bot, mature, and for metric number i the columns
    numerator_i, denominator_i, pre_numerator_i, pre_denominator_i."""

    users: pa.Table
    counts: FoldCounts
    recall: RecallPath
    delivered: Delivered


def fold_users(exposures: pa.Table, outcomes: pa.Table, analysis: Analysis, *, watermark_ms: int) -> Folded:
    """Coded rows (encoding.py), which hold every row of each user in them."""
    found = happened(exposures, outcomes)
    units = find_units(found, only_triggered=analysis.only_triggered)
    follower = Follower(found, units)
    window_ms, late_ms = round(analysis.window_days * DAY_MS), round(analysis.trust.late_hours * _HOUR_MS)
    bot, mature = _bots(follower, analysis), units.first_at + window_ms <= watermark_ms
    sound = (units.arms == 1) & ~bot
    columns = {**_columns(found, units, analysis), "bot": bot, "mature": mature}
    for number, metric in enumerate(analysis.metrics):
        four = _four(follower, metric, analysis) | _given(units, metric, analysis)
        columns |= {f"{name}_{number}": values for name, values in four.items()}
    places = count_places(found, units, sound & mature, window_ms=window_ms)
    return Folded(
        pa.table(columns),
        _counts(found, exposures, outcomes),
        RecallPath(places, _ages(follower, units, sound, found.arms, analysis, watermark_ms)),
        trace_outcomes(found, units, sound, outcomes, window_ms=window_ms, late_ms=late_ms),
    )


def _columns(found: Happened, units: Units, analysis: Analysis) -> dict[str, Any]:
    start_ms = int(analysis.experiment.phases[0].starts_at.timestamp() * 1000)
    return {
        "user_id": found.readers.take(pa.array(units.reader)),
        "phase": pa.array(units.phase),
        "arm": found.arms.take(pa.array(units.arm)),
        "arms": pa.array(units.arms, pa.int32()),
        "first_at": pa.array(units.first_at),
        "day": pa.array((units.first_at - start_ms) // DAY_MS, pa.int32()),
        "cold": units.signals <= analysis.cold_signals,
        "triggered": units.triggered,
    }


def _bots(follower: Follower, analysis: Analysis) -> Mask:
    requests = follower.between(Count(of="request"), *_before(analysis))
    bots: Mask = requests > analysis.bot_requests
    return bots


def _four(follower: Follower, metric: Metric, analysis: Analysis) -> dict[str, Floats]:
    counts = {"numerator": metric.numerator, "denominator": metric.denominator}
    window_ms = round(analysis.window_days * DAY_MS)
    during = {
        name: follower.between(count, round(count.after_days * DAY_MS) if count else 0, window_ms)
        for name, count in counts.items()
    }
    return during | {f"pre_{name}": follower.between(count, *_before(analysis)) for name, count in counts.items()}


def _given(units: Units, metric: Metric, analysis: Analysis) -> dict[str, Floats]:
    """The covariate that the log has for this metric, in the place of the metric's history."""
    if metric.covariate is None:
        return {}
    own = [one.name for one in analysis.metrics if one.covariate is not None].index(metric.name)
    return {"pre_numerator": units.covariates[:, own], "pre_denominator": np.ones(len(units.covariates))}


def _before(analysis: Analysis) -> tuple[int, int]:
    """The ages, in milliseconds, of what is history."""
    return -round(analysis.history_days * DAY_MS), -1


def _ages(
    follower: Follower, units: Units, sound: Mask, arms: pa.Array, analysis: Analysis, watermark_ms: int
) -> dict[str, Moments]:
    """The primary metric of early readers on each day since their first exposure; caps do not apply to single days."""
    starts_at = analysis.starts_at or analysis.experiment.phases[0].starts_at
    days = cohort_ages(round(starts_at.timestamp() * 1000), watermark_ms, DAY_MS)
    metric = follows(analysis)
    if metric is None or days == 0:
        return {}
    followed = sound & (units.first_at <= watermark_ms - days * DAY_MS)
    above, below = (follower.by_day(count, days)[followed] for count in (metric.numerator, metric.denominator))
    of_each = np.asarray(arms.to_pylist(), dtype=object)[units.arm[followed]]
    return age_moments(np.stack([above, below], axis=2), of_each)


def _counts(found: Happened, exposures: pa.Table, outcomes: pa.Table) -> FoldCounts:
    done = found.done
    return FoldCounts(
        exposures=exposures.num_rows,
        repeated_exposures=exposures.num_rows - len(found.shown.reader),
        outcomes=outcomes.num_rows,
        repeated_outcomes=outcomes.num_rows - len(done.reader),
        unmatched_outcomes=int((done.requested & (done.request < 0)).sum()),
        outcomes_before_exposure=int(done.early.sum()),
    )
