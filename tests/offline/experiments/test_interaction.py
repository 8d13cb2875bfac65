"""Two effects compared: lifts where they are known, absolute effects where a lift is refused."""

import numpy as np
import pytest

from offline.experiments.estimates import Estimate
from offline.experiments.interaction import Effect, interaction
from offline.experiments.moments import NotEnoughData


def effect(base: float, lift: float, error: float, count: int = 5_000) -> Effect:
    control, treatment = (
        Estimate(value=value, variance=error**2, count=count, unadjusted=value) for value in (base, base * (1 + lift))
    )
    return Effect(control, treatment)


def test_the_same_lift_on_another_base_is_no_interaction() -> None:
    """0.05 more and 0.01 more are far apart as differences: 6 standard errors."""
    found = interaction(effect(0.5, 0.1, 0.004), effect(0.1, 0.1, 0.002))
    assert found.scale == "relative"
    assert found.value == pytest.approx(0)
    assert found.p_value == pytest.approx(1)


def test_another_lift_is_found_with_its_size() -> None:
    found = interaction(effect(0.1, 0.3, 0.001), effect(0.2, 0.0, 0.002))
    assert found.value == pytest.approx(0.3)
    assert found.interval.holds(0.3)
    assert found.interval.low > 0.2
    assert found.p_value < 1e-6


def test_near_zero_the_differences_are_compared() -> None:
    found = interaction(effect(0.001, 20.0, 0.001), effect(0.1, 0.0, 0.001))
    assert found.scale == "absolute"
    assert found.value == pytest.approx(0.02)
    assert found.p_value < 1e-6


def test_without_an_error_there_is_no_answer() -> None:
    with pytest.raises(NotEnoughData):
        interaction(effect(0.0, 0.0, 0.0), effect(0.1, 0.0, 0.001))


def test_one_in_twenty_is_found_where_there_is_none() -> None:
    drawn = np.random.default_rng(8)
    wrong = 0
    for _ in range(400):
        effects = []
        for base, error in ((0.1, 0.004), (0.3, 0.006)):
            values = base * np.array([1.0, 1.2]) + drawn.normal(0, error, 2)
            arms = [Estimate(value=float(v), variance=error**2, count=2_000, unadjusted=float(v)) for v in values]
            effects.append(Effect(*arms))
        wrong += interaction(*effects).p_value < 0.05
    assert 8 <= wrong <= 34  # 20 expected, with an error of 4.4
