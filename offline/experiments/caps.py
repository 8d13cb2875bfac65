"""Where a capped metric is cut: a quantile of its values over the users of all arms, before any user is tallied.

Counted by value, and not in a sketch of random compaction: the same log has the same cap, to the last bit, in whatever
order its buckets are added. Values of five digits or fewer are exact; longer ones (sums of seconds) are rounded to
five, an error of at most 0.005 %, so that a billion users have no more values than a million.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Self

import msgspec
import numpy as np
import pyarrow as pa

from offline.experiments.definition import Metric
from offline.experiments.moments import Floats
from offline.experiments.tally import counted_users

_DIGITS: Final = 5


class ValueCounts(msgspec.Struct, frozen=True, eq=False):
    """How many users have each value. Addable."""

    values: Floats  # [n], rising
    counts: Floats  # [n], whole numbers

    @classmethod
    def of(cls, values: Floats) -> Self:
        found, counts = np.unique(_rounded(values), return_counts=True)
        return cls(found, counts.astype(np.float64))

    def __add__(self, other: Self) -> Self:
        values, at = np.unique(np.concatenate([self.values, other.values]), return_inverse=True)
        counts: Floats = np.bincount(at, weights=np.concatenate([self.counts, other.counts])).astype(np.float64)
        return type(self)(values, counts)

    def quantile(self, share: float) -> float | None:
        """The smallest value that at least `share` of the users do not exceed; None without users."""
        if not len(self.values):
            return None
        reached = np.cumsum(self.counts) >= share * self.counts.sum()
        return float(self.values[np.argmax(reached)])


def count_values(users: pa.Table, metrics: Sequence[Metric]) -> dict[int, ValueCounts]:
    """Of the numerators that are capped, by metric number; `users` as `fold_users` gives them, those in the metrics."""
    counted = counted_users(users)
    return {
        number: ValueCounts.of(users[f"numerator_{number}"].to_numpy()[counted])
        for number, metric in enumerate(metrics)
        if metric.numerator.cap is not None
    }


def merged_counts(parts: Iterable[dict[int, ValueCounts]]) -> dict[int, ValueCounts]:
    merged: dict[int, ValueCounts] = {}
    for part in parts:
        for number, counts in part.items():
            merged[number] = merged[number] + counts if number in merged else counts
    return merged


def caps_of(counts: dict[int, ValueCounts], metrics: Sequence[Metric]) -> dict[int, float]:
    """By metric number. A metric without users has no cap."""
    found: dict[int, float] = {}
    for number, values in counts.items():
        share = metrics[number].numerator.cap
        cap = values.quantile(share) if share is not None else None
        if cap is not None:
            found[number] = cap
    return found


def _rounded(values: Floats) -> Floats:
    scale = np.ones_like(values)
    large = np.abs(values) >= 10**_DIGITS
    scale[large] = 10.0 ** (np.floor(np.log10(np.abs(values[large]))) - _DIGITS + 1)
    fine = ~large & (values != np.round(values))
    scale[fine] = 10.0 ** (np.floor(np.log10(np.abs(values[fine]))) - _DIGITS + 1)
    rounded: Floats = np.round(values / scale) * scale
    return rounded
