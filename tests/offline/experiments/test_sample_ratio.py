"""Sample ratio mismatch: fair arms pass, a lost arm is found, and daily reading is allowed."""

import numpy as np
import pytest

from offline.experiments.moments import NotEnoughData
from offline.experiments.sample_ratio import chi_square, log_bayes_factor, sequential_p_values

HALVES = {"control": 0.5, "treatment": 0.5}


def test_a_fair_split_passes_and_a_small_loss_is_found() -> None:
    assert chi_square({"control": 10_050, "treatment": 9_950}, HALVES).p_value > 0.4
    assert chi_square({"control": 50_000, "treatment": 49_000}, HALVES).p_value < 0.002


def test_users_of_an_arm_without_weight_are_a_mismatch() -> None:
    weights = {"control": 0.5, "treatment": 0.5, "off": 0.0}
    assert chi_square({"control": 500, "treatment": 500, "off": 1}, weights).p_value == 0.0


def test_few_users_say_nothing() -> None:
    with pytest.raises(NotEnoughData):
        chi_square({"control": 3, "treatment": 5}, HALVES)
    with pytest.raises(NotEnoughData, match="no users"):
        chi_square({}, HALVES)


def test_the_bayes_factor_is_one_on_average_under_fair_weights() -> None:
    """Summed over all outcomes, weighted by their probability: the martingale's start."""
    from scipy import stats

    users = np.arange(41)
    factors = np.exp([log_bayes_factor([n, 40 - n], [0.3, 0.7], 20.0) for n in users])
    assert float(stats.binom.pmf(users, 40, 0.3) @ factors) == pytest.approx(1.0, rel=1e-9)


def test_reading_it_daily_for_sixty_days_stays_under_its_level() -> None:
    drawn, alarms = np.random.default_rng(4), 0
    for _ in range(1_000):
        treated = drawn.binomial(500, 0.5, size=60)
        days = [{"control": 500 - int(n), "treatment": int(n)} for n in treated]
        alarms += sequential_p_values(days, HALVES)[-1] < 0.05
    assert alarms / 1_000 < 0.05


def test_it_never_goes_up_and_finds_a_lost_percent() -> None:
    days = [{"control": 5_000, "treatment": 4_800}] * 30
    values = sequential_p_values(days, HALVES)
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.001
