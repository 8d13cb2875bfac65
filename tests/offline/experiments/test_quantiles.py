"""Quantiles from sketches: near the exact ones whatever the sharding, with intervals that cover."""

import numpy as np
import pytest

from offline.experiments.moments import NotEnoughData
from offline.experiments.quantiles import QuantileSketch


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9, 0.99])
def test_shards_merge_to_nearly_the_exact_quantile(quantile: float) -> None:
    values = np.random.default_rng(1).lognormal(size=50_000)
    whole = QuantileSketch()
    for shard in np.array_split(values, 23):
        whole = whole + QuantileSketch.of(shard)
    low, high = np.quantile(values, [quantile - 0.006, min(1.0, quantile + 0.006)])
    assert whole.count == 50_000
    assert low <= whole.estimate(quantile).value <= high


def test_a_sketch_comes_back_from_its_bytes() -> None:
    sketch = QuantileSketch.of(range(1_000))
    assert QuantileSketch(sketch.to_bytes()).estimate(0.5) == sketch.estimate(0.5)


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    drawn, held = np.random.default_rng(2), 0
    for _ in range(400):
        held += QuantileSketch.of(drawn.exponential(size=500)).estimate(0.5).interval.holds(np.log(2))
    assert held / 400 == pytest.approx(0.95, abs=0.03)


def test_thin_tails_are_refused() -> None:
    with pytest.raises(NotEnoughData, match="too few"):
        QuantileSketch.of(range(500)).estimate(0.99)


def test_ties_do_not_make_differences() -> None:
    """Half of all values are the same one: plain medians of two samples are often different steps."""
    drawn, wrong = np.random.default_rng(3), 0
    for _ in range(100):
        estimates = [QuantileSketch.of(np.floor(drawn.lognormal(4, 1, 2_000) / 55)).estimate(0.5) for _ in range(2)]
        apart = abs(estimates[0].value - estimates[1].value)
        wrong += apart > 1.96 * np.hypot(estimates[0].standard_error, estimates[1].standard_error)
    assert wrong <= 12  # 49 without the mid-distribution


def test_many_values_leave_the_error_of_the_sketch() -> None:
    values = np.random.default_rng(4).normal(size=1_000_000)
    error = QuantileSketch.of(values).estimate(0.5).standard_error
    assert error > 1.2 * np.sqrt(np.pi / 2 / len(values))
