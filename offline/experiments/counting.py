"""Counts of what happened to readers around their first exposure: in vectors, for many readers at once."""

from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from offline.experiments.definition import Aggregate, Count
from offline.experiments.happened import NEVER, Happened, Ids, Mask, Numbers, key
from offline.experiments.moments import Floats
from offline.experiments.units import Units

DAY_MS: Final = 86_400_000


class Events(msgspec.Struct, frozen=True, eq=False):
    """Of one kind [n]: clicks, dwells, visits, impressions or requests."""

    reader: Numbers
    time: Numbers
    value: Floats
    article: Ids
    named: Mask
    exclusive: Mask

    def take(self, rows: NDArray[np.intp]) -> "Events":
        return Events(*(getattr(self, name)[rows] for name in self.__struct_fields__))


class Followed(msgspec.Struct, frozen=True, eq=False):
    """Events [n] of one kind, each once for every unit of its reader."""

    events: Events
    unit: Numbers
    age: Numbers  # since the unit's first exposure, in milliseconds


class Follower:
    """Counts by unit. What several metrics ask for is found once."""

    def __init__(self, found: Happened, units: Units) -> None:
        self._found, self._units = found, units
        self._kinds: dict[str, Followed] = {}

    def between(self, count: Count | None, first_ms: int, last_ms: int) -> Floats:
        """[units]: of what happened at ages in [first_ms, last_ms]; 1 without a count."""
        if count is None:
            return np.ones(len(self._units.reader))
        rows = self._followed(count.of)
        holds = (rows.age >= first_ms) & (rows.age <= last_ms)
        return counted(count, rows.events, holds, rows.unit, len(self._units.reader))

    def by_day(self, count: Count | None, days: int) -> Floats:
        """[units, days]: of what happened on each day of age; 1 without a count."""
        units = len(self._units.reader)
        if count is None:
            return np.ones((units, days))
        rows = self._followed(count.of)
        holds = (rows.age >= 0) & (rows.age < days * DAY_MS)
        found: Floats = counted(count, rows.events, holds, rows.unit * days + rows.age // DAY_MS, units * days)
        return found.reshape(units, days)

    def _followed(self, kind: str) -> Followed:
        if kind not in self._kinds:
            self._kinds[kind] = follow(events_of(kind, self._found), self._units)
        return self._kinds[kind]


def follow(events: Events, units: Units) -> Followed:
    rows, unit = units.of_readers(events.reader)
    return Followed(events.take(rows), unit, events.time[rows] - units.first_at[unit])


def events_of(kind: str, found: Happened) -> Events:
    """Outcomes dated before their answer are not among them: a clock is wrong."""
    if kind == "impression":
        return _impressions(found)
    if kind == "request":
        return _requests(found)
    done, kinds = found.done, found.kinds.to_pylist()
    wanted = done.kind == (kinds.index(kind) if kind in kinds else -1)
    rows = np.flatnonzero(wanted & ~done.early)
    return Events(done.reader, done.time, done.value, done.article, done.named, done.exclusive).take(rows)


def _impressions(found: Happened) -> Events:
    shown = found.shown
    ones = np.ones(len(shown.reader))
    every = Events(shown.reader, shown.time, ones, shown.article, shown.named, shown.exclusive)
    return every if shown.named.all() else every.take(np.flatnonzero(shown.named))


def _requests(found: Happened) -> Events:
    there = np.flatnonzero(found.answered != NEVER)
    nothing = np.zeros(len(there), dtype=bool)
    ids = np.zeros(len(there), dtype=np.uint64)
    return Events(found.asked_by[there], found.answered[there], np.ones(len(there)), ids, nothing, nothing)


def counted(count: Count, events: Events, holds: Mask, group: Numbers, groups: int) -> Floats:
    """[groups]: `count` of the events in each group where `holds`."""
    rows = np.flatnonzero(holds & events.exclusive if count.exclusive else holds)
    return _AGGREGATES[count.aggregate](events, rows, group[rows], groups)


def _rows(events: Events, rows: NDArray[np.intp], group: Numbers, groups: int) -> Floats:
    return np.bincount(group, minlength=groups).astype(np.float64)


def _sum(events: Events, rows: NDArray[np.intp], group: Numbers, groups: int) -> Floats:
    return np.bincount(group, weights=events.value[rows], minlength=groups).astype(np.float64)


def _any(events: Events, rows: NDArray[np.intp], group: Numbers, groups: int) -> Floats:
    return (np.bincount(group, minlength=groups) > 0).astype(np.float64)


def _days(events: Events, rows: NDArray[np.intp], group: Numbers, groups: int) -> Floats:
    return _distinct(group, (events.time[rows] // DAY_MS).view(np.uint64), groups)


def _articles(events: Events, rows: NDArray[np.intp], group: Numbers, groups: int) -> Floats:
    named = events.named[rows]
    return _distinct(group[named], events.article[rows[named]], groups)


def _distinct(group: Numbers, what: Ids, groups: int) -> Floats:
    first = np.unique(key(group, what), return_index=True)[1]
    return np.bincount(group[first], minlength=groups).astype(np.float64)


_AGGREGATES: Final[dict[Aggregate, Callable[[Events, NDArray[np.intp], Numbers, int], Floats]]] = {
    "count": _rows,
    "sum": _sum,
    "any": _any,
    "days": _days,
    "articles": _articles,
}
