"""Means, ratios and CUPED beside tea-tasting, an independent implementation, and beside known truths."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import tea_tasting as tt

from offline.experiments.comparison import difference, relative_lift
from offline.experiments.estimates import Estimate, cuped, plain, post_stratified
from offline.experiments.moments import Floats, Moments, NotEnoughData


def users(seed: int, count: int, lift: float = 0.0) -> Floats:
    """Clicks and impressions, now and before."""
    drawn = np.random.default_rng(seed)
    taste = drawn.gamma(2.0, 0.1, size=count)
    shown, shown_before = drawn.poisson(12, size=count) + 1, drawn.poisson(12, size=count) + 1
    clicks = drawn.poisson(taste * shown * (1 + lift))
    return np.column_stack([clicks, shown, drawn.poisson(taste * shown_before), shown_before]).astype(float)


def with_ones(rows: Floats) -> Floats:
    changed = rows.copy()
    changed[:, 1] = changed[:, 3] = 1.0
    return changed


CONTROL, TREATMENT = users(1, 4_000), users(2, 5_000, lift=0.1)


def oracle(metric: object) -> Any:
    frames = [
        pd.DataFrame(rows, columns=["clicks", "shown", "clicks_before", "shown_before"])
        for rows in (CONTROL, TREATMENT)
    ]
    data = pd.concat([frame.assign(variant=at) for at, frame in enumerate(frames)])
    return tt.Experiment(metric=metric).analyze(data)["metric"]


@pytest.mark.parametrize(
    ("metric", "ratio", "adjusted"),
    [
        (tt.Mean("clicks"), False, False),
        (tt.RatioOfMeans("clicks", "shown"), True, False),
        (tt.Mean("clicks", covariate="clicks_before"), False, True),
        (tt.RatioOfMeans("clicks", "shown", "clicks_before", "shown_before"), True, True),
    ],
    ids=["mean", "ratio", "mean with CUPED", "ratio with CUPED"],
)
def test_the_same_figures_as_tea_tasting(metric: object, ratio: bool, adjusted: bool) -> None:
    arms = [Moments.of(rows if ratio else with_ones(rows)) for rows in (CONTROL, TREATMENT)]
    control, treatment = cuped(arms, ratio=ratio) if adjusted else [plain(arm, ratio=ratio) for arm in arms]
    found, expected = difference(control, treatment), oracle(metric)
    tolerance = 2e-3 if adjusted else 1e-9  # tea-tasting takes theta from the pooled, not the within-arm covariance
    assert found.value == pytest.approx(expected.effect_size, rel=tolerance)
    assert found.interval.low == pytest.approx(expected.effect_size_ci_lower, rel=tolerance)
    assert found.p_value == pytest.approx(expected.pvalue, rel=0.05 if adjusted else 1e-6)
    if not adjusted:
        lift = relative_lift(control, treatment)
        assert lift.value == pytest.approx(expected.rel_effect_size, rel=1e-9)
        # its degrees of freedom are those of the logarithms
        assert lift.interval.low == pytest.approx(expected.rel_effect_size_ci_lower, rel=1e-5)
        assert lift.interval.high == pytest.approx(expected.rel_effect_size_ci_upper, rel=1e-5)


def test_cuped_shrinks_the_error_by_the_correlation() -> None:
    drawn = np.random.default_rng(3)
    before = drawn.normal(size=20_000)
    now = 0.8 * before + 0.6 * drawn.normal(size=20_000)  # correlation 0.8
    rows = np.column_stack([now, np.ones_like(now), before, np.ones_like(now)])
    arms = [Moments.of(rows[:10_000]), Moments.of(rows[10_000:])]
    for arm, adjusted in zip(arms, cuped(arms, ratio=False), strict=True):
        assert adjusted.variance / plain(arm, ratio=False).variance == pytest.approx(1 - 0.8**2, abs=0.02)


def test_without_history_cuped_changes_nothing() -> None:
    rows = CONTROL.copy()
    rows[:, 2:] = 0.0
    arms = [Moments.of(rows[:2_000]), Moments.of(rows[2_000:])]
    assert cuped(arms, ratio=True) == [plain(arm, ratio=True) for arm in arms]


def test_post_stratification_removes_the_difference_between_strata() -> None:
    cold = Estimate(value=1.0, variance=0.01, count=100, unadjusted=1.0)
    warm = Estimate(value=3.0, variance=0.04, count=300, unadjusted=3.0)
    found = post_stratified([cold, warm], [0.25, 0.75])
    assert found.value == 2.5
    assert found.variance == pytest.approx(0.25**2 * 0.01 + 0.75**2 * 0.04)
    assert found.count == 400


def test_a_metric_without_denominator_says_so() -> None:
    rows = CONTROL.copy()
    rows[:, 1] = 0.0
    with pytest.raises(NotEnoughData, match="denominator is zero"):
        plain(Moments.of(rows), ratio=True)
