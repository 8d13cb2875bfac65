"""How long an experiment still has to run: the primary metric's power, from a log so far or from a guessed spread."""

import msgspec

from offline.experiments.definition import Analysis
from offline.experiments.estimates import Estimate
from offline.experiments.looking import Chance, chance_to_decide
from offline.experiments.metric_rows import primary_alpha
from offline.experiments.moments import NotEnoughData
from offline.experiments.path import primary
from offline.experiments.power import days_needed, detectable_lift, power_of, users_needed
from offline.experiments.strata import estimate_pair
from offline.experiments.tally import Tally
from schemas.errors import UsageError


class PowerReport(msgspec.Struct, frozen=True, kw_only=True):
    """Of one arm against the control. `users` and days are of both arms; None: not known, or never."""

    metric: str
    arm: str
    alpha: float  # of this arm: arms share the analysis' alpha
    decision: str  # the declared way of looking, which the figures are of
    power: float  # wanted
    lift: float  # to be found
    control_mean: float
    users: int | None = None  # so far, in the metric
    detectable_lift: float | None = None  # by the users so far
    power_so_far: float | None = None
    users_needed: int
    days: int | None = None  # so far
    days_still_needed: int | None = None  # the last day's new readers going on


def power_from_log(tally: Tally, analysis: Analysis, *, lift: float, power: float) -> list[PowerReport]:
    """For each arm. Strata and history narrow the estimate as in the analysis. Raises NotEnoughData."""
    return [_of_arm(tally, analysis, arm, lift, power) for arm in analysis.arms[1:]]


def power_from_guess(
    analysis: Analysis, *, mean: float, variance: float, lift: float, power: float, daily_users: float | None
) -> list[PowerReport]:
    """Before there is a log: `variance` is that of one reader's value, `daily_users` new readers of both arms."""
    if variance <= 0 or mean == 0 or lift == 0:
        raise UsageError("--variance must be above 0, --mean and --lift not 0")
    control = Estimate(value=mean, variance=variance / 2, count=2, unadjusted=mean)
    found, chance = [], _chance(analysis)
    for arm in analysis.arms[1:]:
        share = treatment_share(analysis, arm)
        needed = users_needed(control, lift=lift, power=power, treatment_share=share, chance=chance)
        days = days_needed(needed, [daily_users]) if daily_users is not None else None
        found.append(_report(analysis, arm, lift, power, mean, needed, days_still_needed=days))
    return found


def _chance(analysis: Analysis) -> Chance:
    return chance_to_decide(msgspec.structs.replace(analysis, alpha=primary_alpha(analysis)))


def treatment_share(analysis: Analysis, arm: str) -> float:
    """Of the arm among itself and the control, by the weights of the last phase."""
    weights = analysis.experiment.phases[-1].weights
    both = weights[arm] + weights[analysis.control]
    if weights[arm] == 0 or weights[analysis.control] == 0:
        raise UsageError(f"{arm} or {analysis.control} has the weight 0 in the last phase: nobody will come")
    return weights[arm] / both


def _of_arm(tally: Tally, analysis: Analysis, arm: str, lift: float, power: float) -> PowerReport:
    number, share = primary(analysis), treatment_share(analysis, arm)
    if lift == 0:
        raise UsageError("--lift must not be 0: no number of readers finds it")
    pair = estimate_pair(tally, analysis.metrics[number], number, (analysis.control, arm), lambda key: True)
    if pair.control.variance <= 0:
        raise NotEnoughData(f"{analysis.metrics[number].name} does not vary among the readers of {analysis.control}")
    users = pair.control.count + pair.treatment.count
    chance = _chance(analysis)
    needed = users_needed(pair.control, lift=lift, power=power, treatment_share=share, chance=chance)
    by_day = new_readers(tally, analysis, arm)
    total = days_needed(needed, by_day)
    return _report(
        analysis,
        arm,
        lift,
        power,
        pair.control.unadjusted,
        needed,
        users=users,
        detectable_lift=detectable_lift(pair.control, users=users, power=power, treatment_share=share, chance=chance),
        power_so_far=power_of(pair.control, lift=lift, users=users, treatment_share=share, chance=chance),
        days=len(by_day),
        days_still_needed=None if total is None else max(0, total - len(by_day)),
    )


def new_readers(tally: Tally, analysis: Analysis, arm: str) -> list[float]:
    """First exposed on each day from the first to the last, both arms; days without anybody are there."""
    days = [key.day for key in tally.cells]
    found = []
    for day in range(min(days, default=0), max(days, default=-1) + 1):
        cell = tally.total(lambda key, day=day: key.day == day and key.arm in (analysis.control, arm))  # type: ignore[misc]
        found.append(float(cell.exposed))
    return found


def _report(
    analysis: Analysis, arm: str, lift: float, power: float, mean: float, needed: int, **known: float | int | None
) -> PowerReport:
    return msgspec.convert(
        {
            "metric": analysis.metrics[primary(analysis)].name,
            "arm": arm,
            "alpha": primary_alpha(analysis),
            "decision": analysis.decision,
            "power": power,
            "lift": lift,
            "control_mean": mean,
            "users_needed": needed,
            **known,
        },
        PowerReport,
    )
