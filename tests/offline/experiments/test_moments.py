"""The addable statistic: numpy's covariance whatever the grouping, order and offset."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline.experiments.moments import Floats, Moments, NotEnoughData, merged

seeds = st.integers(min_value=0, max_value=2**32 - 1)


def rows_of(seed: int, count: int, offset: float = 0.0) -> Floats:
    drawn = np.random.default_rng(seed)
    rows: Floats = offset + drawn.normal(size=(count, 3)) @ np.array(
        [[1.0, 0.5, 0.0], [0.0, 1.0, 2.0], [0.0, 0.0, 0.1]]
    )
    return rows


@given(seeds, st.lists(st.integers(min_value=0, max_value=40), min_size=1, max_size=8), st.sampled_from([0.0, 1e6]))
def test_any_sharding_gives_the_covariance_of_the_rows(seed: int, sizes: list[int], offset: float) -> None:
    shards = [rows_of(seed + at, size, offset) for at, size in enumerate(sizes)]
    whole = np.concatenate(shards)
    found = merged([Moments.of(shard) for shard in shards], 3)
    assert found.count == len(whole)
    if len(whole) > 1:
        np.testing.assert_allclose(found.mean, whole.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(found.covariance(), np.cov(whole.T), rtol=1e-6, atol=1e-8)


@given(seeds, st.integers(min_value=1, max_value=30), st.integers(min_value=1, max_value=30))
def test_adding_is_commutative_and_zero_is_neutral(seed: int, first: int, second: int) -> None:
    left, right = Moments.of(rows_of(seed, first)), Moments.of(rows_of(seed + 1, second))
    np.testing.assert_allclose((left + right).products, (right + left).products, rtol=1e-9, atol=1e-12)
    assert (left + Moments.zero(3)) is left
    assert (Moments.zero(3) + left) is left


@given(seeds)
def test_adding_is_associative(seed: int) -> None:
    a, b, c = (Moments.of(rows_of(seed + at, 7 + at)) for at in range(3))
    np.testing.assert_allclose(((a + b) + c).products, (a + (b + c)).products, rtol=1e-9, atol=1e-12)


def test_values_far_from_zero_keep_their_variance() -> None:
    """NIST StRD NumAcc4: mean 10000000.2, standard deviation 0.1, where a sum of squares goes negative."""
    values = np.concatenate([[10_000_000.2], np.tile([10_000_000.1, 10_000_000.3], 500)])
    found = merged([Moments.of(values[at : at + 10, None]) for at in range(0, 1001, 10)], 1)
    assert found.mean[0] == pytest.approx(10_000_000.2, rel=1e-15)
    assert np.sqrt(found.covariance()[0, 0]) == pytest.approx(0.1, rel=1e-6)


def test_one_user_has_no_variance() -> None:
    with pytest.raises(NotEnoughData, match="1 users: a variance needs two"):
        Moments.of(np.ones((1, 2))).covariance()
