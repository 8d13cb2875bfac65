"""Calibration of the tests and intervals of one look: means, ratios, CUPED, strata, quantiles, lifts, families."""

from functools import cache
from typing import Final

import numpy as np
from scipy import stats

from bench._experiment_calibration import Band, Study, at_most, coverage, false_positives, near
from bench._experiment_worlds import (
    Generator,
    Readers,
    cells_of,
    click_rate,
    draw_readers,
    mean_clicks,
)
from offline.experiments.bayes import belief
from offline.experiments.comparison import LiftMethod, difference, non_inferiority, relative_lift
from offline.experiments.definition import Count, Metric
from offline.experiments.estimates import Estimate, cuped, plain
from offline.experiments.moments import Floats, Moments
from offline.experiments.multiplicity import adjust
from offline.experiments.power import power_of, users_needed
from offline.experiments.strata import estimate_pair
from offline.experiments.tally import Tally

ALPHA: Final = 0.05
READERS: Final = 1_000  # of each arm
LIFT: Final = 0.1
MARGIN: Final = 0.05
PRIOR_ERROR: Final = 0.1  # of the lifts that the Bayesian worlds are drawn from
POWER: Final = 0.8
RAMP: Final = ((0.1, 1.0), (0.5, 0.6))  # share treated and click rate of two phases: pooled arms differ by nothing else
CTR: Final = Metric(name="ctr", numerator=Count(of="click"), denominator=Count(of="impression"))
_POPULATION: Final = 400_000


def draw_null(drawn: Generator) -> dict[str, bool]:
    """No effect: every p-value below 5 % is a false one."""
    arms = [draw_readers(drawn, READERS) for _ in range(2)]
    pairs = _pairs(arms)
    found = {f"{name}: p < 0.05": difference(*pair).p_value < ALPHA for name, pair in pairs.items()}
    found["rows as if they were readers: p < 0.05"] = difference(*(_by_rows(arm.rows) for arm in arms)).p_value < ALPHA
    return found


def draw_effect(drawn: Generator) -> dict[str, bool]:
    """A lift of every reader: does each interval hold the truth?"""
    arms = [draw_readers(drawn, READERS), draw_readers(drawn, READERS, lift=LIFT)]
    pairs = _pairs(arms)
    gained = {"mean": mean_clicks(LIFT) - mean_clicks(), "ratio": click_rate(LIFT) - click_rate()}
    found: dict[str, bool] = {}
    for name, true in (("mean", "mean"), ("mean, CUPED", "mean"), ("ratio", "ratio"), ("ratio, CUPED", "ratio")):
        found[f"{name}: difference"] = difference(*pairs[name]).interval.holds(gained[true])
    methods: tuple[LiftMethod, ...] = ("log-ratio", "fieller")
    for name in ("mean", "ratio", "ratio, CUPED"):
        for method in methods:
            held = relative_lift(*pairs[name], method=method).interval.holds(LIFT)
            found[f"{name}: lift, {method}"] = held
    return found


def draw_harm(drawn: Generator) -> dict[str, bool]:
    """A loss of exactly the margin: whoever calls it harmless is wrong."""
    arms = [draw_readers(drawn, READERS), draw_readers(drawn, READERS, lift=-MARGIN)]
    pairs = _pairs(arms)
    found = {}
    for name in ("mean", "ratio", "ratio, CUPED"):
        judged = non_inferiority(*pairs[name], margin=MARGIN)
        found[f"{name}: margin kept, p < 0.05"] = judged.holds
        found[f"{name}: bound below the truth"] = judged.low <= -MARGIN
    return found


def draw_belief(drawn: Generator) -> dict[str, bool]:
    """Lifts drawn from the prior: a credible interval is right as often as it says, over those worlds."""
    lift = float(drawn.normal(0, PRIOR_ERROR))
    control, treatment = (
        plain(Moments.of(draw_readers(drawn, 4 * READERS, lift=x).rows), ratio=True) for x in (0, lift)
    )
    found = difference(control, treatment)
    believed = belief(found.value / control.value, found.standard_error / control.value, prior_error=PRIOR_ERROR)
    return {"credible interval": believed.interval.holds(lift)}


def draw_ramp(drawn: Generator) -> dict[str, bool]:
    """Two phases with other weights and other click rates, cold and warm readers, no effect."""
    tally, arms = _ramp(drawn, 0.0)
    pair = estimate_pair(tally, CTR, 0, ("control", "treatment"), lambda key: True)
    pooled = [plain(Moments.of(rows), ratio=True) for rows in arms]
    return {
        "post-stratified: p < 0.05": difference(pair.control, pair.treatment).p_value < ALPHA,
        "phases pooled: p < 0.05": difference(*pooled).p_value < ALPHA,
    }


def draw_ramp_effect(drawn: Generator) -> dict[str, bool]:
    tally, _ = _ramp(drawn, LIFT)
    pair = estimate_pair(tally, CTR, 0, ("control", "treatment"), lambda key: True)
    rate = np.mean([base for _, base in RAMP]) * click_rate()  # phases of equal size
    return {
        "post-stratified: difference": difference(pair.control, pair.treatment).interval.holds(float(LIFT * rate)),
        "post-stratified: lift": relative_lift(pair.control, pair.treatment).interval.holds(LIFT),
    }


def draw_family(drawn: Generator) -> dict[str, bool]:
    """Five metrics that hang together, none of them moved; and ten of which five are."""
    none = _two_sided(_correlated(drawn, 5))
    half = _two_sided(_correlated(drawn, 10) + np.repeat([0.0, 3.0], 5))
    holm = adjust(none.tolist(), alpha=ALPHA, correction="holm")
    found = adjust(half.tolist(), alpha=ALPHA, correction="benjamini-hochberg")
    wrong, all_found = sum(row.rejected for row in found[:5]), sum(row.rejected for row in found)
    # the false discovery rate is the mean of wrong / found: a draw with that chance has the same expectation
    return {
        "any of five metrics, Holm": any(row.rejected for row in holm),
        "any of five metrics, uncorrected": bool((none < ALPHA).any()),
        "a finding of ten is false, Benjamini-Hochberg": bool(drawn.random() * max(1, all_found) < wrong),
    }


def draw_power(drawn: Generator) -> dict[str, bool]:
    """The experiment that `users_needed` asks for: is the lift found as often as promised?"""
    found = {}
    for name in _POWERED:
        users = users_needed(_population(name), lift=LIFT, power=POWER) // 2
        arms = [draw_readers(drawn, users), draw_readers(drawn, users, lift=LIFT)]
        found[f"{name}: lift found"] = difference(*_pairs(arms)[name]).p_value < ALPHA
    arms = [draw_readers(drawn, READERS), draw_readers(drawn, READERS, lift=LIFT)]
    found["ratio, 1,000 an arm: lift found"] = difference(*_pairs(arms)["ratio"]).p_value < ALPHA
    return found


_POWERED: Final = ("mean", "ratio", "ratio, CUPED")


@cache
def _population(name: str) -> Estimate:
    """What the control's estimate would be with very many readers: the input of the power formula."""
    drawn = np.random.default_rng(20_260_101)
    return _pairs([draw_readers(drawn, _POPULATION) for _ in range(2)])[name][0]


def _pairs(arms: list[Readers]) -> dict[str, list[Estimate]]:
    clicks, rows = (
        [Moments.of(table) for table in tables] for tables in zip(*((a.clicks(), a.rows) for a in arms), strict=True)
    )
    return {
        "mean": [plain(arm, ratio=False) for arm in clicks],
        "mean, CUPED": cuped(clicks, ratio=False),
        "proportion": [plain(Moments.of(arm.clicked()), ratio=False) for arm in arms],
        "ratio": [plain(arm, ratio=True) for arm in rows],
        "ratio, CUPED": cuped(rows, ratio=True),
    }


def _by_rows(rows: Floats) -> Estimate:
    """The click rate with the binomial error of its impressions: what experiments.md warns of as trap 1."""
    clicks, shown = rows[:, 0].sum(), rows[:, 1].sum()
    rate = float(clicks / shown)
    return Estimate(value=rate, variance=rate * (1 - rate) / float(shown), count=int(shown), unadjusted=rate)


def _ramp(drawn: Generator, lift: float) -> tuple[Tally, list[Floats]]:
    """The cells, and the same readers pooled over phases: [control, treatment]."""
    tally, pooled = Tally({}), []
    for arm, gain in (("control", 0.0), ("treatment", lift)):
        phases = []
        for phase, (treated, base) in enumerate(RAMP):
            count = drawn.binomial(2 * READERS, treated if arm == "treatment" else 1 - treated)
            readers = draw_readers(drawn, count, lift=gain, base=base)
            tally = tally + Tally(cells_of(readers.rows, readers.cold, arm, phase=phase))
            phases.append(readers.rows)
        pooled.append(np.concatenate(phases))
    return tally, pooled


def _correlated(drawn: Generator, count: int) -> Floats:
    """z scores, any two of them with a correlation of a half."""
    scores: Floats = np.sqrt(0.5) * drawn.normal() + np.sqrt(0.5) * drawn.normal(size=count)
    return scores


def _two_sided(scores: Floats) -> Floats:
    p_values: Floats = 2 * stats.norm.sf(np.abs(scores))
    return p_values


def inference_studies() -> list[Study]:
    """All of this file, with the bands of issue and literature."""
    contrast = Band("false positives", note="why readers are the unit")
    lifts = [f"{name}: lift, {how}" for name in ("mean", "ratio", "ratio, CUPED") for how in ("log-ratio", "fieller")]
    differences = [f"{name}: difference" for name in ("mean", "mean, CUPED", "ratio", "ratio, CUPED")]
    tested = ("mean", "mean, CUPED", "proportion", "ratio", "ratio, CUPED")
    one_sided = Band("coverage", 0.935, 0.96, "one-sided 95 %")
    return [
        Study(
            "A/A",
            draw_null,
            {f"{name}: p < 0.05": false_positives() for name in tested}
            | {"rows as if they were readers: p < 0.05": contrast},
        ),
        Study("lift of 10 %", draw_effect, {name: coverage() for name in (*differences, *lifts)}),
        Study(
            "loss of the margin",
            draw_harm,
            {f"{name}: margin kept, p < 0.05": false_positives("one-sided") for name in _POWERED}
            | {f"{name}: bound below the truth": one_sided for name in _POWERED},
        ),
        Study("lifts from the prior", draw_belief, {"credible interval": coverage()}),
        Study(
            "A/A, two phases of a ramp",
            draw_ramp,
            {
                "post-stratified: p < 0.05": false_positives(),
                "phases pooled: p < 0.05": Band("false positives", note="Simpson's paradox"),
            },
        ),
        Study(
            "lift of 10 %, two phases of a ramp",
            draw_ramp_effect,
            {"post-stratified: difference": coverage(), "post-stratified: lift": coverage()},
        ),
        Study(
            "families",
            draw_family,
            {
                "any of five metrics, Holm": at_most(ALPHA, "false positives"),
                "any of five metrics, uncorrected": Band("false positives", note="why families are corrected"),
                "a finding of ten is false, Benjamini-Hochberg": at_most(ALPHA, "false positives"),
            },
            2.0,
        ),
        Study("power of 80 %, lift of 10 %", draw_power, _power_bands()),
    ]


def _power_bands() -> dict[str, Band]:
    planned = {f"{name}: lift found": near(POWER, note="users_needed for 80 %") for name in _POWERED}
    formula = power_of(_population("ratio"), lift=LIFT, users=2 * READERS, alpha=ALPHA)
    return planned | {"ratio, 1,000 an arm: lift found": near(formula)}
