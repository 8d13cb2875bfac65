"""Calibration of what is looked at more than once, of the sample ratio, quantiles, segments, and of whole reports."""

from datetime import UTC, datetime
from functools import cache, reduce
from typing import Final

import numpy as np
from scipy import stats

from bench._experiment_calibration import Band, Study, at_least, at_most, attempt, coverage, false_positives, near
from bench._experiment_worlds import Generator, cells_of, click_rate, draw_readers
from offline.experiments.comparison import Interval, difference
from offline.experiments.definition import Analysis, Count, Decision, Metric
from offline.experiments.estimates import COLUMNS, Estimate, cuped
from offline.experiments.moments import Floats, Moments
from offline.experiments.path import decide
from offline.experiments.quantiles import QuantileSketch
from offline.experiments.report import build_report
from offline.experiments.sample_ratio import chi_square, sequential_p_values
from offline.experiments.sequential import Spending, boundaries, confidence_sequence
from offline.experiments.strata import estimate_pair
from offline.experiments.tally import Tally
from offline.experiments.trust import LogCounts
from schemas.experiment import Arm, Experiment, Phase

ALPHA: Final = 0.05
LIFT: Final = 0.1
DAYS: Final = 14
DAILY: Final = 100  # new readers of each arm
HALVES: Final = {"control": 0.5, "treatment": 0.5}
SPENDINGS: Final[tuple[Spending, ...]] = ("obrien-fleming", "pocock")
SHIFTED: Final = 0.494  # the control's share, where a half was declared
SHIFTED_USERS: Final = 100_000
ALARM: Final = 0.001
DWELL_READERS: Final = 2_000  # of each arm


def draw_looks(drawn: Generator) -> dict[str, bool]:
    """Fourteen daily looks without an effect."""
    points = _path(drawn, 0.0)
    z = np.array([abs(value) / error for value, error in points])
    found = {f"{DAYS} looks, group sequential ({name})": bool((z >= _bounds(name)).any()) for name in SPENDINGS}
    found[f"{DAYS} looks, confidence sequence"] = not all(_always(points, day).holds(0.0) for day in range(DAYS))
    found[f"{DAYS} looks at p < 0.05"] = bool((z >= stats.norm.isf(ALPHA / 2)).any())
    found["one look at the end"] = bool(z[-1] >= stats.norm.isf(ALPHA / 2))
    return found


def draw_looks_effect(drawn: Generator) -> dict[str, bool]:
    """Does the interval hold the true difference at all looks at once?"""
    points, truth = _path(drawn, LIFT), click_rate(LIFT) - click_rate()
    z = np.array([abs(value - truth) / error for value, error in points])
    found = {f"all {DAYS} intervals, group sequential ({name})": bool((z < _bounds(name)).all()) for name in SPENDINGS}
    held = all(_always(points, day).holds(truth) for day in range(DAYS))
    found[f"all {DAYS} intervals, confidence sequence"] = held
    return found


def draw_sample_ratio(drawn: Generator) -> dict[str, bool]:
    """Arms of equal weight: daily counts, looked at every day."""
    days = _daily_counts(drawn, 0.5)
    total = {arm: sum(day[arm] for day in days) for arm in HALVES}
    once, always = chi_square(total, HALVES).p_value, sequential_p_values(days, HALVES)[-1]
    return {
        "chi-square: p < 0.05": once < ALPHA,
        "chi-square: p < 0.001": once < ALARM,
        f"{DAYS} looks, always-valid: p < 0.05": always < ALPHA,
        f"{DAYS} looks, always-valid: p < 0.001": always < ALARM,
    }


def draw_mismatch(drawn: Generator) -> dict[str, bool]:
    """1.2 % of the control's readers are missing."""
    days = _daily_counts(drawn, SHIFTED)
    total = {arm: sum(day[arm] for day in days) for arm in HALVES}
    return {
        "chi-square finds it": chi_square(total, HALVES).p_value < ALARM,
        "always-valid finds it by the last day": sequential_p_values(days, HALVES)[-1] < ALARM,
    }


def draw_quantiles(drawn: Generator) -> dict[str, bool]:
    """Dwell seconds, lognormal: the arms' quantiles by sketch; and a metric of few values, where they are ties."""
    arms = [drawn.lognormal(4, 1, DWELL_READERS) for _ in range(2)]
    found: dict[str, bool] = {}
    for quantile in (0.5, 0.9):
        estimates = [QuantileSketch.of(arm).estimate(quantile) for arm in arms]
        truth = float(np.exp(4 + stats.norm.ppf(quantile)))
        found[f"quantile {quantile:g}: interval"] = estimates[0].interval.holds(truth)
        both = [_estimate_of(arm, quantile) for arm in arms]
        found[f"quantile {quantile:g}: p < 0.05"] = difference(*both).p_value < ALPHA
    counts = [np.floor(arm / 55) for arm in arms]
    attempt(
        lambda: difference(*(_estimate_of(arm, 0.5) for arm in counts)).p_value < ALPHA,
        found,
        "median of a count: p < 0.05",
    )
    return found


def draw_report(drawn: Generator) -> dict[str, bool]:
    """A whole report without an effect; arrivals by chance."""
    report = build_report(_tally(drawn), _analysis("fixed", READERS), LogCounts(rows=1))
    verdict = report.verdicts["treatment"].judgement
    p_value = report.segments[0].interaction_p_value
    before = next(check for check in report.trust if check.name.startswith("before"))
    return {
        "verdict at the end": verdict in ("better", "worse"),
        "blocked": verdict == "blocked",
        "cold beside warm, interaction: p < 0.05": p_value is not None and p_value < ALPHA,
        "before the experiment: warning": before.status == "warning",
    }


def draw_decisions(drawn: Generator) -> dict[str, bool]:
    """The report's decision on each of the days, without an effect: is it ever a wrong one?"""
    days = [_day(drawn, day) for day in range(DAYS)]
    found = dict.fromkeys((_named(*how) for how in _DECISIONS), False)
    tally = Tally({})
    for day in days:
        tally = tally + day
        pair = estimate_pair(tally, _METRIC, 0, ("control", "treatment"), lambda key: True)
        for how in _DECISIONS:
            decided = decide(tally, _analysis(*how), "treatment", pair)
            found[_named(*how)] |= decided is not None and decided.conclusive
    return found


READERS: Final = 2 * DAYS * DAILY
_METRIC: Final = Metric(name="ctr", role="primary", numerator=Count(of="click"), denominator=Count(of="impression"))
_DECISIONS: Final[tuple[tuple[Decision, int], ...]] = (
    ("fixed", READERS),
    ("group-sequential", READERS),
    ("group-sequential", READERS // 2),
    ("confidence-sequence", READERS),
)


def _named(decision: Decision, expected: int) -> str:
    return f"daily decision, {decision}{', half of the readers expected' if expected < READERS else ''}"


def _path(drawn: Generator, lift: float) -> list[tuple[float, float]]:
    """Difference and standard error of the click rate under CUPED, after each day."""
    sums = [Moments.zero(COLUMNS), Moments.zero(COLUMNS)]
    points = []
    for _ in range(DAYS):
        for arm, gain in enumerate((0.0, lift)):
            sums[arm] = sums[arm] + Moments.of(draw_readers(drawn, DAILY, lift=gain).rows)
        found = difference(*cuped(sums, ratio=True))
        points.append((found.value, found.standard_error))
    return points


@cache
def _bounds(spending: Spending) -> Floats:
    return np.array(boundaries([(day + 1) / DAYS for day in range(DAYS)], alpha=ALPHA, spending=spending))


def _always(points: list[tuple[float, float]], day: int) -> Interval:
    return confidence_sequence(*points[day], 2 * DAILY * (day + 1), alpha=ALPHA, tuned_for=READERS)


def _daily_counts(drawn: Generator, share: float) -> list[dict[str, int]]:
    users = drawn.multinomial(SHIFTED_USERS, np.full(DAYS, 1 / DAYS))
    control = drawn.binomial(users, share)
    return [{"control": int(c), "treatment": int(n - c)} for c, n in zip(control, users, strict=True)]


def _estimate_of(values: Floats, quantile: float) -> Estimate:
    at = QuantileSketch.of(values).estimate(quantile)
    return Estimate(value=at.value, variance=at.standard_error**2, count=at.count, unadjusted=at.value)


def _tally(drawn: Generator) -> Tally:
    return reduce(Tally.__add__, (_day(drawn, day) for day in range(DAYS)))


def _day(drawn: Generator, day: int) -> Tally:
    count = int(drawn.poisson(2 * DAILY))
    treated = int(drawn.binomial(count, 0.5))
    tally = Tally({})
    for arm, own in (("control", count - treated), ("treatment", treated)):
        readers = draw_readers(drawn, own)
        tally = tally + Tally(cells_of(readers.rows, readers.cold, arm, day=day))
    return tally


@cache
def _analysis(decision: Decision, expected: int) -> Analysis:
    arms = (Arm(name="control", path=False), Arm(name="treatment"))
    phase = Phase(starts_at=datetime(2026, 1, 5, tzinfo=UTC), weights=HALVES)
    return Analysis(
        experiment=Experiment(name="calibration", salt="calibration", arms=arms, phases=(phase,)),
        control="control",
        metrics=(_METRIC,),
        decision=decision,
        expected_users=expected,
    )


def look_studies() -> list[Study]:
    """All of this file."""
    peeking = Band("looks", note="naive peeking: what the bounds are for")
    once = 1 - stats.ncx2.cdf(stats.chi2.isf(ALARM, 1), 1, 4 * SHIFTED_USERS * (SHIFTED - 0.5) ** 2)
    return [
        Study(
            "A/A, daily looks",
            draw_looks,
            {f"{DAYS} looks, group sequential ({name})": at_most(ALPHA, "looks") for name in SPENDINGS}
            | {f"{DAYS} looks, confidence sequence": at_most(ALPHA, "looks")}
            | {f"{DAYS} looks at p < 0.05": peeking, "one look at the end": false_positives()},
        ),
        Study(
            "lift of 10 %, daily looks",
            draw_looks_effect,
            {
                f"all {DAYS} intervals, {how}": at_least(0.95, "coverage", "at all looks at once")
                for how in (*(f"group sequential ({name})" for name in SPENDINGS), "confidence sequence")
            },
        ),
        Study(
            "sample ratio, sound",
            draw_sample_ratio,
            {
                "chi-square: p < 0.05": false_positives(),
                "chi-square: p < 0.001": Band("false positives", 0.0005, 0.0015),
                f"{DAYS} looks, always-valid: p < 0.05": at_most(ALPHA, "looks"),
                f"{DAYS} looks, always-valid: p < 0.001": at_most(ALARM, "looks"),
            },
            10.0,
        ),
        Study(
            "sample ratio, 1.2 % of the control lost",
            draw_mismatch,
            {
                "chi-square finds it": near(float(once), "detection"),
                "always-valid finds it by the last day": Band("detection", note="the price of daily looks"),
            },
        ),
        Study("quantiles over readers", draw_quantiles, _quantile_bands()),
        Study("whole reports, A/A", draw_report, _report_bands(), 0.3),
        Study("decisions read daily, A/A", draw_decisions, _decision_bands(), 0.1),
    ]


def _quantile_bands() -> dict[str, Band]:
    bands = {"median of a count: p < 0.05": at_most(0.065, "false positives", "ties")}
    for quantile in (0.5, 0.9):
        bands[f"quantile {quantile:g}: interval"] = coverage("Woodruff")
        bands[f"quantile {quantile:g}: p < 0.05"] = false_positives()
    return bands


def _report_bands() -> dict[str, Band]:
    return {
        "verdict at the end": false_positives(),
        "blocked": at_most(0.005, "false positives", "checks at 0.001 each"),
        "before the experiment: warning": at_most(0.003, "false positives", "a check at 0.001"),
        "cold beside warm, interaction: p < 0.05": false_positives(),
    }


def _decision_bands() -> dict[str, Band]:
    peeking = Band("looks", note="why `fixed` is read once")
    return {_named(*how): peeking if how[0] == "fixed" else at_most(ALPHA, "looks") for how in _DECISIONS}
