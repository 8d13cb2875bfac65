"""Where a capped metric is cut: a quantile of its values over the users of all arms, before any user is tallied.

Counted by value, and not in a sketch of random compaction: the same log has the same cap, to the last bit, in whatever
order its buckets are added. Values of five digits or fewer are exact; longer ones (sums of seconds) are rounded to
five, an error of at most 0.005 %, so that a billion users have no more values than a million.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import pyarrow as pa

from offline.experiments.definition import Metric
from offline.experiments.tally import counted_users
from offline.experiments.value_counts import ValueCounts

_DIGITS: Final = 5


def count_values(users: pa.Table, metrics: Sequence[Metric]) -> dict[int, ValueCounts]:
    """Of the numerators that are capped, by metric number; `users` as `fold_users` gives them, those in the metrics."""
    counted = counted_users(users)
    return {
        number: ValueCounts.of(users[f"numerator_{number}"].to_numpy()[counted], digits=_DIGITS)
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
