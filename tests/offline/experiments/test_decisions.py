"""Families of comparisons, beliefs, and the size of an experiment."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import NormalIndPower

from offline.experiments.bayes import belief
from offline.experiments.definition import Correction, Decision
from offline.experiments.estimates import Estimate
from offline.experiments.looking import chance_to_decide
from offline.experiments.moments import NotEnoughData
from offline.experiments.multiplicity import adjust
from offline.experiments.power import days_needed, detectable_lift, power_of, users_needed
from offline.experiments.sequential import boundaries, confidence_sequence
from tests.offline.experiments.log_rows import ANALYSIS

p_values = st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=12)


@given(p_values, st.sampled_from(["holm", "benjamini-hochberg"]))
def test_an_interval_at_the_adjusted_level_agrees_with_the_adjusted_test(found: list[float], by: Correction) -> None:
    for p_value, row in zip(found, adjust(found, correction=by), strict=True):
        assert row.rejected == (p_value <= row.alpha)
        assert row.p_value >= p_value


def test_holm_s_own_example() -> None:
    found = adjust([0.01, 0.04, 0.03, 0.005])
    assert [row.p_value for row in found] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [row.rejected for row in found] == [True, False, False, True]


def test_a_wide_prior_leaves_the_estimate_and_a_narrow_one_wins() -> None:
    assert belief(0.1, 0.01, prior_error=100.0).mean == pytest.approx(0.1, rel=1e-6)
    assert belief(0.1, 0.01, prior_error=1e-4).mean == pytest.approx(0.0, abs=1e-4)


def test_expected_loss_and_chance_as_by_sampling() -> None:
    found = belief(0.02, 0.03, prior_error=0.1)
    spread = (found.interval.high - found.mean) / 1.959964
    drawn = np.random.default_rng(5).normal(found.mean, spread, size=400_000)
    assert found.better == pytest.approx((drawn > 0).mean(), abs=0.004)
    assert found.expected_loss == pytest.approx(np.maximum(0, -drawn).mean(), abs=2e-4)


CONTROL = Estimate(value=0.4, variance=0.25 / 1_000, count=1_000, unadjusted=0.4)


def test_power_as_statsmodels_has_it() -> None:
    expected = NormalIndPower().power(effect_size=0.04 / 0.5, nobs1=2_000, alpha=0.05, ratio=1.0)
    assert power_of(CONTROL, lift=0.1, users=4_000) == pytest.approx(expected, abs=1e-6)


def test_users_and_lift_are_each_other_s_inverse() -> None:
    users = users_needed(CONTROL, lift=0.05, treatment_share=0.3)
    assert power_of(CONTROL, lift=0.05, users=users, treatment_share=0.3) >= 0.8
    assert power_of(CONTROL, lift=0.05, users=users * 0.99, treatment_share=0.3) < 0.8
    assert detectable_lift(CONTROL, users=users, treatment_share=0.3) == pytest.approx(0.05, rel=1e-3)


def test_power_by_simulation() -> None:
    drawn = np.random.default_rng(6)
    runs = [drawn.normal([[0.4], [0.44]], 0.5, size=(2, 1_000)) for _ in range(2_000)]
    found = np.mean([stats.ttest_ind(*run, equal_var=False).pvalue < 0.05 for run in runs])
    assert power_of(CONTROL, lift=0.1, users=2_000) == pytest.approx(found, abs=0.03)


@pytest.mark.parametrize("decision", ["group-sequential", "confidence-sequence"])
def test_power_of_looking_daily_by_simulation(decision: Decision) -> None:
    """Brownian paths with the drift of the lift, looked at on 14 days."""
    users, times = 3_000, np.arange(1, 15) / 14
    drift = 0.1 * CONTROL.value / (0.25 * 4 / users) ** 0.5
    steps = np.random.default_rng(7).normal(drift / 14, 14**-0.5, size=(20_000, 14))
    scores = np.abs(np.cumsum(steps, axis=1) / np.sqrt(times))
    always = [confidence_sequence(0, 1, round(users * time), tuned_for=users).high for time in times]
    bounds = boundaries(list(times)) if decision == "group-sequential" else always
    chance = chance_to_decide(msgspec.structs.replace(ANALYSIS, decision=decision, expected_users=users))
    found = (scores > bounds).any(axis=1).mean()
    assert power_of(CONTROL, lift=0.1, users=users, chance=chance) == pytest.approx(found, abs=0.01)


def test_days_go_on_at_the_last_rate() -> None:
    assert days_needed(250, [100, 100, 100]) == 3
    assert days_needed(1_000, [300, 200, 100]) == 7
    assert days_needed(1_000, [300, 0]) is None


def test_no_effect_needs_no_number_of_users() -> None:
    with pytest.raises(NotEnoughData):
        users_needed(CONTROL, lift=0.0)
