"""The primary metric day by day, and the decision by the declared way of looking at it."""

import msgspec

from offline.experiments.comparison import Interval, difference
from offline.experiments.definition import Analysis
from offline.experiments.moments import NotEnoughData
from offline.experiments.sequential import confidence_sequence, look
from offline.experiments.strata import Pair, estimate_pair
from offline.experiments.tally import Tally


class PathPoint(msgspec.Struct, frozen=True, kw_only=True):
    """After all readers first exposed up to `day`."""

    day: int
    users: int  # in the metric, both arms
    value: float | None = None  # the difference
    fixed: Interval | None = None  # right for this day alone
    always: Interval | None = None  # right for all days at once
    missing: str = ""


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """`conclusive` when zero is outside of `interval`."""

    value: float
    interval: Interval
    conclusive: bool
    better: bool


def primary(analysis: Analysis) -> int:
    """The number of the primary metric."""
    return next(number for number, metric in enumerate(analysis.metrics) if metric.role == "primary")


def path(tally: Tally, analysis: Analysis, arm: str) -> list[PathPoint]:
    """One point for each day on which readers were first exposed."""
    return [_point(tally, analysis, arm, day) for day in sorted({key.day for key in tally.cells})]


def decide(tally: Tally, analysis: Analysis, arm: str, pair: Pair) -> Decided | None:
    """None when there is not enough data for the declared way of looking.

    Group sequential looks end with the first one that has the expected users: all of alpha is spent then, and readers
    who come later cannot change the decision (further looks at the last bound would find 5 % and more).
    """
    try:
        if analysis.decision == "group-sequential":
            value, interval = _planned(tally, analysis, arm)
        else:
            found = difference(pair.control, pair.treatment, alpha=analysis.alpha)
            fixed = analysis.decision == "fixed"
            always = found.interval if fixed else _always(found.value, found.standard_error, pair, analysis)
            value, interval = found.value, always
    except NotEnoughData:
        return None
    better = (value > 0) == analysis.metrics[primary(analysis)].higher_is_better
    return Decided(value=value, interval=interval, conclusive=not interval.holds(0.0), better=better)


def _always(value: float, standard_error: float, pair: Pair, analysis: Analysis) -> Interval:
    users = pair.control.count + pair.treatment.count
    tuned_for = {} if analysis.expected_users is None else {"tuned_for": analysis.expected_users}
    return confidence_sequence(value, standard_error, users, alpha=analysis.alpha, **tuned_for)


def _planned(tally: Tally, analysis: Analysis, arm: str) -> tuple[float, Interval]:
    """The last planned look: the difference and its repeated interval. Looks that could be taken count as taken."""
    number, arms = primary(analysis), (analysis.control, arm)
    last, fractions = _looks(tally, analysis, arms)
    pair = estimate_pair(tally, analysis.metrics[number], number, arms, lambda key: key.day <= last)
    found = difference(pair.control, pair.treatment, alpha=analysis.alpha)
    return found.value, look(found.value, found.standard_error, fractions, alpha=analysis.alpha).interval


def _looks(tally: Tally, analysis: Analysis, arms: tuple[str, str]) -> tuple[int, list[float]]:
    """The day of the last look, and the fractions of the expected users at each day's look up to it."""
    expected, number = analysis.expected_users or 1, primary(analysis)
    users: dict[int, int] = {}
    for key, cell in sorted(tally.cells.items()):
        if key.arm in arms:
            users[key.day] = users.get(key.day, 0) + cell.moments[number].count
    fractions: list[float] = []
    reached = last = 0
    for day, count in sorted(users.items()):
        if reached >= expected:
            break
        reached, last = reached + count, day
        if count:
            fractions.append(min(reached, expected) / expected)
    return last, fractions


def _point(tally: Tally, analysis: Analysis, arm: str, day: int) -> PathPoint:
    number = primary(analysis)
    cells = tally.total(lambda key: key.arm in (analysis.control, arm) and key.day <= day)
    users = cells.moments[number].count if cells.moments else 0
    try:
        metric, arms = analysis.metrics[number], (analysis.control, arm)
        pair = estimate_pair(tally, metric, number, arms, lambda key: key.day <= day)
        found = difference(pair.control, pair.treatment, alpha=analysis.alpha)
        always = _always(found.value, found.standard_error, pair, analysis)
    except NotEnoughData as error:
        return PathPoint(day=day, users=users, missing=str(error))
    return PathPoint(day=day, users=users, value=found.value, fixed=found.interval, always=always)
