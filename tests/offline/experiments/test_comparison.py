"""Two arms: Welch beside scipy, lifts that refuse what cannot be read, non-inferiority."""

import numpy as np
import pytest
from scipy import stats

from offline.experiments.comparison import difference, non_inferiority, relative_lift
from offline.experiments.estimates import Estimate, plain
from offline.experiments.moments import Floats, Moments, NotEnoughData


def estimate(value: float, error: float, count: int = 1_000) -> Estimate:
    return Estimate(value=value, variance=error**2, count=count, unadjusted=value)


def arm(values: Floats) -> Estimate:
    return plain(Moments.of(np.column_stack([values, np.ones_like(values), np.zeros((len(values), 2))])), ratio=False)


def test_welch_as_scipy_has_it() -> None:
    drawn = np.random.default_rng(1)
    control, treatment = drawn.normal(1.0, 1.0, size=50), drawn.normal(1.5, 3.0, size=20)
    found = difference(arm(control), arm(treatment))
    expected = stats.ttest_ind(treatment, control, equal_var=False)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.degrees == pytest.approx(expected.df, rel=1e-9)
    assert found.interval.low == pytest.approx(expected.confidence_interval().low, rel=1e-9)


@pytest.mark.parametrize("method", ["log-ratio", "fieller"])
def test_a_lift_covers_the_truth_as_often_as_it_says(method: str) -> None:
    drawn, held = np.random.default_rng(2), 0
    for _ in range(2_000):
        control, treatment = drawn.normal(10, 1.0), drawn.normal(11, 1.0)
        lift = relative_lift(estimate(control, 1.0), estimate(treatment, 1.0), method=method)  # type: ignore[arg-type]
        held += lift.interval.holds(0.1)
    assert held / 2_000 == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("value", [0.0, 0.29, -5.0])
def test_no_lift_over_a_control_near_or_below_zero(value: float) -> None:
    with pytest.raises(NotEnoughData, match="too near zero"):
        relative_lift(estimate(value, 0.1), estimate(1.0, 0.1))


def test_a_treatment_below_zero_has_no_log_ratio_but_fieller_s_interval() -> None:
    with pytest.raises(NotEnoughData, match="no logarithm"):
        relative_lift(estimate(1.0, 0.1), estimate(-0.1, 0.1))
    found = relative_lift(estimate(1.0, 0.1), estimate(-0.1, 0.1), method="fieller")
    assert found.interval.holds(-1.1)


@pytest.mark.parametrize(("treatment", "holds"), [(1.00, True), (0.995, True), (0.96, False)])
def test_a_guardrail_holds_when_it_has_lost_less_than_its_margin(treatment: float, holds: bool) -> None:
    found = non_inferiority(estimate(1.0, 0.005), estimate(treatment, 0.005), margin=0.02)
    assert found.holds is holds
    assert (found.low > -0.02) is holds  # test and bound agree


def test_arms_that_do_not_vary_are_no_result() -> None:
    with pytest.raises(NotEnoughData, match="no variation"):
        difference(estimate(1.0, 0.0), estimate(1.0, 0.0))
    with pytest.raises(NotEnoughData, match="fewer than two users"):
        difference(estimate(1.0, 0.1, count=1), estimate(1.0, 0.1))
