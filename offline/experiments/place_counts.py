"""Counts of shown places by what brought the article, over the readers of a bucket."""

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from offline.experiments.happened import NEVER, Happened, Ids, Mask, Numbers, key
from offline.experiments.places import DIMENSIONS, PlaceKey, PlaceSums
from offline.experiments.units import Units

Counts = NDArray[np.int64]


def count_places(found: Happened, units: Units, counts: Mask, *, window_ms: int) -> dict[PlaceKey, PlaceSums]:
    """Places shown to the units that `counts`, between their first exposure and the end of their window. A place
    clicked twice is one clicked place."""
    rows, unit = _within(found, units, counts, window_ms)
    clicked = _clicked(found, rows, units.first_at[unit] + window_ms)
    counted = (np.ones(len(rows)), clicked, clicked & found.shown.exclusive[rows])
    unit, place, sums = _by_pair(unit, found.shown.place[rows], len(found.places), np.stack(counted, axis=1))
    labels = [["all", *msgspec.json.decode(label)] for label in found.places.to_pylist()]
    places: dict[PlaceKey, PlaceSums] = {}
    for number, dimension in enumerate(DIMENSIONS):
        names, value = np.unique([label[number] for label in labels] or [""], return_inverse=True)
        of_unit, of_value, counts_of = _by_pair(unit, value[place], len(names), sums)
        arm_and_value, totals, products = _over_units(units.arm[of_unit] * len(names) + of_value, counts_of)
        for pair, readers, total, product in zip(*arm_and_value, totals.tolist(), products.tolist(), strict=True):
            arm, name = divmod(pair, len(names))
            key_ = PlaceKey(found.arms[arm].as_py(), dimension, str(names[name]))
            places[key_] = PlaceSums(readers, tuple(total), tuple(product))
    return places


def _within(found: Happened, units: Units, counts: Mask, window_ms: int) -> tuple[Numbers, Numbers]:
    """Rows of `shown` with an article, and the unit of each."""
    shown, phases = found.shown, units.number.shape[1]
    rows = np.flatnonzero(shown.inside & shown.named & (shown.phase < phases))
    unit = units.number[shown.reader[rows], shown.phase[rows]]
    age = shown.time[rows] - units.first_at[unit]
    kept = np.flatnonzero((unit >= 0) & (age >= 0) & (age <= window_ms) & counts[unit])
    return rows[kept], unit[kept]


def _clicked(found: Happened, rows: Numbers, until: Numbers) -> Mask:
    """Was the article of each shown row clicked in the same answer, from then to `until`?"""
    shown, done, kinds = found.shown, found.done, found.kinds.to_pylist()
    click = kinds.index("click") if "click" in kinds else -1
    clicks = np.flatnonzero((done.kind == click) & done.named & (done.request >= 0))
    answers = np.zeros(len(found.answered), dtype=bool)
    answers[done.request[clicks]] = True
    maybe = np.flatnonzero(answers[shown.request[rows]])  # few answers have a click
    at = rows[maybe]
    keys, times = key(done.request[clicks], done.article[clicks]), done.time[clicks]
    order = np.lexsort((times, keys))
    places = key(shown.request[at], shown.article[at])
    clicked = np.zeros(len(rows), dtype=bool)
    clicked[maybe] = _next(keys[order], times[order], places, shown.time[at]) <= until[maybe]
    return clicked


def _next(keys: Ids, times: Numbers, wanted: Ids, since: Numbers) -> Numbers:
    """The first of `times`, which rise for each of the rising `keys`, that is not before `since`; else NEVER."""
    at, end = np.searchsorted(keys, wanted), np.searchsorted(keys, wanted, side="right")
    padded = np.append(times, NEVER)
    while len(earlier := np.flatnonzero((at < end) & (padded[at] < since))):
        at[earlier] += 1
    return np.where(at < end, padded[at], NEVER)


def _by_pair(first: Numbers, second: Numbers, seconds: int, counts: Counts) -> tuple[Numbers, Numbers, Counts]:
    """The pairs that are there, and the sums [pairs, d] of their rows of `counts`."""
    pairs = pa.array(first * max(1, seconds) + second).dictionary_encode()
    at, number = pairs.indices.to_numpy(), len(pairs.dictionary)
    sums = np.stack([np.bincount(at, column, number) for column in counts.T], axis=1).astype(np.int64)
    return *np.divmod(pairs.dictionary.to_numpy(), max(1, seconds)), sums


def _over_units(group: Numbers, counts: Counts) -> tuple[tuple[list[int], list[int]], Counts, Counts]:
    """The groups and how many units each has; their totals [groups, 3], and the products [groups, 6] of PlaceSums."""
    groups, at, units = np.unique(group, return_inverse=True, return_counts=True)
    products = [counts[:, low] * counts[:, high] for low in range(3) for high in range(low, 3)]
    sums = [np.bincount(at, column, len(groups)).astype(np.int64) for column in (*counts.T, *products)]
    totals = np.stack(sums, axis=1)
    return (groups.tolist(), units.tolist()), totals[:, :3], totals[:, 3:]
