"""Where metrics are cut: exact on counts, close on sums, and the same bits in any order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from offline.experiments.caps import merged_counts
from offline.experiments.value_counts import ValueCounts

values = st.lists(st.integers(min_value=0, max_value=99_999), min_size=1, max_size=60)


@given(values, st.floats(min_value=0.5, max_value=0.99), st.integers(min_value=1, max_value=5))
def test_the_quantile_of_counts_is_exact_in_any_parts(numbers: list[int], share: float, parts: int) -> None:
    cut = [np.array(numbers[n::parts], dtype=np.float64) for n in range(parts)]
    merged = merged_counts({0: ValueCounts.of(part, digits=5)} for part in cut)[0]
    expected = np.quantile(numbers, share, method="inverted_cdf")
    assert merged.quantile(share) == expected


def test_long_sums_are_rounded_to_five_digits() -> None:
    numbers = np.random.default_rng(1).lognormal(6, 3, 5_000)
    found = ValueCounts.of(numbers, digits=5).quantile(0.9)
    assert found is not None
    assert abs(found / np.quantile(numbers, 0.9, method="inverted_cdf") - 1) < 5e-5


def test_no_users_have_no_quantile() -> None:
    assert ValueCounts.of(np.zeros(0), digits=5).quantile(0.9) is None
