"""Many looks: the textbook's bounds, and the error rate that they promise."""

import numpy as np
import pytest

from offline.experiments.moments import Floats, NotEnoughData
from offline.experiments.sequential import Spending, boundaries, confidence_sequence, look, spent

FIFTHS = [0.2, 0.4, 0.6, 0.8, 1.0]
# gsDesign 3.6, sfLDOF and sfLDPocock, two-sided symmetric at 0.025 each side
PUBLISHED: dict[Spending, list[float]] = {
    "obrien-fleming": [4.8769, 3.3569, 2.6803, 2.2898, 2.0310],
    "pocock": [2.4380, 2.4268, 2.4101, 2.3966, 2.3859],
}


@pytest.mark.parametrize("spending", ["obrien-fleming", "pocock"])
def test_five_equal_looks_have_the_published_bounds(spending: Spending) -> None:
    assert boundaries(FIFTHS, spending=spending) == pytest.approx(PUBLISHED[spending], abs=2e-3)


@pytest.mark.parametrize("spending", ["obrien-fleming", "pocock"])
def test_all_of_alpha_is_spent_at_the_end_and_no_more_later(spending: Spending) -> None:
    assert spent(spending, 0.0, 0.05) == 0.0
    assert spent(spending, 1.0, 0.05) == pytest.approx(0.05)
    assert spent(spending, 1.7, 0.05) == pytest.approx(0.05)


def test_one_look_at_the_end_is_the_ordinary_test() -> None:
    assert boundaries([1.0]) == pytest.approx([1.95996], abs=1e-3)


def paths(seed: int, looks: int, runs: int = 20_000) -> Floats:
    """Brownian motion without drift at equal times, as z scores: [runs, looks]."""
    steps = np.random.default_rng(seed).normal(size=(runs, looks)) / np.sqrt(looks)
    scores: Floats = np.cumsum(steps, axis=1) / np.sqrt(np.arange(1, looks + 1) / looks)
    return scores


@pytest.mark.parametrize("spending", ["obrien-fleming", "pocock"])
def test_fourteen_daily_looks_keep_five_percent(spending: Spending) -> None:
    fractions = [(day + 1) / 14 for day in range(14)]
    z = paths(1, 14)
    wrong = (np.abs(z) >= boundaries(fractions, spending=spending)).any(axis=1).mean()
    assert wrong == pytest.approx(0.05, abs=0.005)  # 3.2 standard errors
    assert (np.abs(z) >= 1.96).any(axis=1).mean() > 0.18  # what looking without bounds does


def test_a_confidence_sequence_is_right_at_all_looks_at_once() -> None:
    runs, looks, batch = 4_000, 50, 100
    sums = np.cumsum(np.random.default_rng(2).normal(size=(runs, looks)) * np.sqrt(batch), axis=1)
    users = batch * np.arange(1, looks + 1)
    half = [confidence_sequence(0.0, 1 / np.sqrt(n), int(n), tuned_for=2_500).high for n in users]
    wrong = (np.abs(sums / users) > half).any(axis=1).mean()
    assert wrong < 0.05


def test_a_confidence_sequence_is_wider_than_one_look_but_not_by_much_where_it_is_tuned() -> None:
    half = confidence_sequence(0.0, 1.0, 5_000, tuned_for=5_000).high
    assert 1.96 < half < 1.6 * 1.96


def test_a_look_stops_when_the_score_passes_its_bound() -> None:
    passed = look(0.3, 0.1, [0.5, 0.9])
    assert passed.stops
    assert passed.interval.low > 0
    assert not look(0.2, 0.1, [0.5, 0.9]).stops


def test_fractions_must_grow() -> None:
    with pytest.raises(NotEnoughData, match="growing"):
        boundaries([0.5, 0.5])
