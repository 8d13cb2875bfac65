"""Calibration of the checks by arm, of segments and of novelty: alike is called alike, and what differs is found."""

from datetime import UTC, datetime
from functools import cache
from typing import Final

import numpy as np
from scipy import stats

from bench._experiment_calibration import Band, Study, at_least, at_most, attempt, coverage, false_positives
from bench._experiment_worlds import Generator, draw_readers
from offline.experiments.balance import even_outcomes
from offline.experiments.comparison import difference
from offline.experiments.definition import Analysis, Count, Metric
from offline.experiments.delivery import COLUMNS
from offline.experiments.estimates import plain
from offline.experiments.interaction import Effect, interaction
from offline.experiments.moments import Floats, Moments, NotEnoughData
from offline.experiments.novelty import Novelty, age_moments, novelty
from offline.experiments.tally import Tally
from schemas.experiment import Arm, Experiment, Phase

ALPHA: Final = 0.05
ARMS: Final = ("control", "treatment")
READERS: Final = 3_000  # of each arm
OUTCOMES: Final = 4.0  # mean of a reader
LATE: Final = 0.05  # mean share that comes late; some readers' connections are bad
SPREAD: Final = 0.2  # beta: the smaller, the more alike are the outcomes of one reader
SLOWER: Final = 0.05  # more of them late, in a slower arm
LOST: Final = 0.02  # of one arm's clicks
DAYS: Final = 7
TASTE: Final = 0.1  # mean click rate
LIFT: Final = 0.3  # on the first day
FADING: Final = LIFT / (DAYS - 1)  # lost each day, until none is left
METRIC: Final = Metric(name="ctr", role="primary", numerator=Count(of="click"), denominator=Count(of="impression"))


def draw_delivery(drawn: Generator) -> dict[str, bool]:
    """Both arms lose and delay alike; then one of them more."""
    control, same = (_delivered(drawn) for _ in ARMS)
    alike, slower, lossy = (
        _p_values(control, other) for other in (same, _delivered(drawn, late=SLOWER), _delivered(drawn, lost=LOST))
    )
    rows = [arm[:, [COLUMNS.index("late"), COLUMNS.index("timed")]].sum(axis=0) for arm in (control, same)]
    table = [[late, timed - late] for late, timed in rows]
    return {
        "late outcomes: p < 0.05": alike["late outcomes"] < ALPHA,
        "late outcomes: a warning": alike["late outcomes"] < 0.001,
        "outcomes as if they were readers: p < 0.05": float(stats.chi2_contingency(table).pvalue) < ALPHA,
        "5 points more are late: a warning": slower["late outcomes"] < 0.001,
        "2 % of clicks lost: found": lossy["clicks lost"] < 0.001,
    }


def draw_novelty(drawn: Generator) -> dict[str, bool]:
    """A steady effect has no slope; one that fades has the slope with which it was drawn."""
    found: dict[str, bool] = {}
    steady, fading = _novelty(drawn, np.full(DAYS, LIFT)), _novelty(drawn, LIFT - FADING * np.arange(DAYS))
    for name, one, slope in (("steady", steady, 0.0), ("fading", fading, -FADING * TASTE)):
        attempt(lambda one=one, slope=slope: _holds(one, slope), found, f"{name}: slope's interval")  # type: ignore[misc]
    attempt(lambda: _p_value(steady) < ALPHA, found, "steady: p < 0.05")
    attempt(lambda: _p_value(fading) < ALPHA, found, "fading: found")
    return found


def draw_interaction(drawn: Generator) -> dict[str, bool]:
    """Cold readers click less than warm ones, and the path lifts both alike: no difference between them."""
    effects = {}
    for cold, share in (("cold", 1.0), ("warm", 0.0)):
        arms = [draw_readers(drawn, READERS, lift=lift, cold_share=share) for lift in (0.0, LIFT)]
        effects[cold] = Effect(*(plain(Moments.of(arm.rows), ratio=True) for arm in arms))
    apart = [difference(effect.control, effect.treatment) for effect in effects.values()]
    z = (apart[0].value - apart[1].value) / np.hypot(apart[0].standard_error, apart[1].standard_error)
    return {
        "lifts compared: p < 0.05": interaction(effects["cold"], effects["warm"]).p_value < ALPHA,
        "absolute effects compared: p < 0.05": bool(abs(z) > stats.norm.isf(ALPHA / 2)),
    }


def check_studies() -> list[Study]:
    """All of this file."""
    return [
        Study(
            "delivery by arm",
            draw_delivery,
            {
                "late outcomes: p < 0.05": false_positives(),
                "late outcomes: a warning": at_most(0.002, "false positives", "a check at 0.001"),
                "outcomes as if they were readers: p < 0.05": Band("false positives", note="why readers are the unit"),
                "5 points more are late: a warning": at_least(0.9, "detection"),
                "2 % of clicks lost: found": at_least(0.9, "detection"),
            },
        ),
        Study(
            f"cold and warm readers, the same lift of {LIFT:.0%}",
            draw_interaction,
            {
                "lifts compared: p < 0.05": false_positives(),
                "absolute effects compared: p < 0.05": Band("false positives", note="why lifts are compared"),
            },
        ),
        Study(
            f"effect by day since exposure, {DAYS} days",
            draw_novelty,
            {
                "steady: p < 0.05": false_positives(),
                "steady: slope's interval": coverage(),
                "fading: slope's interval": coverage(),
                "fading: found": Band("detection", note=f"{LIFT:.0%} on the first day, nothing on the last"),
            },
        ),
    ]


def _delivered(drawn: Generator, *, late: float = 0.0, lost: float = 0.0) -> Floats:
    """[readers, COLUMNS] of one arm."""
    activity = np.exp(drawn.normal(-0.32, 0.8, READERS))
    outcomes, share = drawn.poisson(OUTCOMES * activity), drawn.beta(LATE * SPREAD, (1 - LATE) * SPREAD, READERS)
    rows = np.zeros((READERS, len(COLUMNS)))
    delayed = drawn.binomial(outcomes, np.minimum(1.0, share + late))
    for name, counts in (("timed", outcomes), ("late", delayed), ("dwells", outcomes), ("named", outcomes)):
        rows[:, COLUMNS.index(name)] = counts
    rows[:, COLUMNS.index("matched")] = outcomes
    rows[:, COLUMNS.index("clickless")] = drawn.binomial(outcomes, 0.01 + lost)
    return rows


def _p_values(control: Floats, treatment: Floats) -> dict[str, float]:
    """By check; 1 where nothing was to be compared."""
    delivery = {arm: Moments.of(rows) for arm, rows in zip(ARMS, (control, treatment), strict=True)}
    checks = even_outcomes(Tally({}, delivery=delivery), _analysis())
    return {check.name.removesuffix(", by arm"): 1.0 if check.value is None else check.value for check in checks}


def _novelty(drawn: Generator, lifts: Floats) -> Novelty:
    """The same readers on all days: each one's taste makes the days alike."""
    arms = np.repeat(np.array(ARMS, dtype=object), READERS // 2)
    gain = np.where((arms == "treatment")[:, None], 1 + lifts, 1.0)
    taste = drawn.gamma(2, TASTE / 2, READERS)[:, None]
    shown = drawn.poisson(6, (READERS, DAYS))
    rows = np.stack([drawn.poisson(taste * shown * gain), shown], axis=2).astype(float)
    return novelty(age_moments(rows, arms), METRIC, ("control", "treatment"))


def _holds(found: Novelty, slope: float) -> bool:
    if found.slope_interval is None:
        raise NotEnoughData(found.missing)
    return found.slope_interval.holds(slope)


def _p_value(found: Novelty) -> float:
    if found.slope_p_value is None:
        raise NotEnoughData(found.missing)
    return found.slope_p_value


@cache
def _analysis() -> Analysis:
    arms = (Arm(name="control", path=False), Arm(name="treatment"))
    phase = Phase(starts_at=datetime(2026, 1, 5, tzinfo=UTC), weights=dict.fromkeys(ARMS, 0.5))
    experiment = Experiment(name="calibration", salt="calibration", arms=arms, phases=(phase,))
    return Analysis(experiment=experiment, control="control", metrics=(METRIC,))
