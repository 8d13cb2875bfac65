"""Quantiles from sketches: near the exact ones, the same whatever the sharding, with intervals that cover."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline.experiments.moments import NotEnoughData
from offline.experiments.quantiles import QuantileSketch


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9, 0.99])
def test_shards_merge_to_nearly_the_exact_quantile(quantile: float) -> None:
    values = np.random.default_rng(1).lognormal(size=50_000)
    whole = QuantileSketch()
    for shard in np.array_split(values, 23):
        whole = whole + QuantileSketch.of(shard)
    assert whole.count == 50_000
    assert whole.estimate(quantile).value == pytest.approx(np.quantile(values, quantile), rel=6e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(min_value=0, max_value=10**6), st.integers(min_value=2, max_value=40), st.booleans())
def test_thousands_of_readers_give_the_same_bytes_in_any_shards_and_order(seed: int, shards: int, whole: bool) -> None:
    """A sketch of random compaction would not, from some hundred readers on."""
    drawn = np.random.default_rng(seed)
    values = drawn.lognormal(4, 2, 5_000)
    once = QuantileSketch.of(np.floor(values) if whole else values)
    order = drawn.permutation(values)
    parts = [QuantileSketch.of(np.floor(part) if whole else part) for part in np.array_split(order, shards)]
    drawn.shuffle(parts)  # type: ignore[arg-type]
    while len(parts) > 1:  # a tree of any form
        parts[-2:] = [parts[-1] + parts[-2]]
        parts.insert(0, parts.pop())
    assert parts[0].to_bytes() == once.to_bytes()


def test_a_sketch_comes_back_from_its_bytes() -> None:
    sketch = QuantileSketch.of(range(1_000))
    assert QuantileSketch(sketch.to_bytes()).estimate(0.5) == sketch.estimate(0.5)
    assert QuantileSketch(QuantileSketch().to_bytes()).count == 0


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


def test_a_million_values_take_no_more_room_than_their_steps_and_lose_no_precision() -> None:
    values = np.random.default_rng(4).lognormal(4, 1, size=1_000_000)
    sketch = QuantileSketch.of(values)
    assert len(sketch.to_bytes()) < 16 * 9_000 * np.log10(values.max() / values.min())
    estimate = sketch.estimate(0.5)
    assert estimate.value == pytest.approx(np.median(values), rel=5e-5)
    assert estimate.standard_error == pytest.approx(np.sqrt(np.pi / 2 / len(values)) * np.exp(4), rel=0.05)
