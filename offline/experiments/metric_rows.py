"""Each metric in each arm against the control: the rows of a report, and the families that they are corrected in."""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import msgspec

from offline.experiments.bayes import Belief, belief
from offline.experiments.comparison import (
    Difference,
    Lift,
    NonInferiority,
    difference,
    non_inferiority,
    relative_lift,
)
from offline.experiments.definition import Analysis, Metric
from offline.experiments.estimates import Estimate
from offline.experiments.interaction import Effect, Interaction, interaction
from offline.experiments.looking import chance_to_decide
from offline.experiments.moments import NotEnoughData
from offline.experiments.multiplicity import Adjusted, adjust, bonferroni
from offline.experiments.path import Decided, decide, primary
from offline.experiments.power import detectable_lift
from offline.experiments.strata import MIN_STRATUM_USERS, Pair, Wanted, estimate_pair
from offline.experiments.tally import Tally

Found = TypeVar("Found")
SEGMENTS: Final[dict[str, bool]] = {"cold": True, "warm": False}


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One metric, one arm against the control. What is None could not be computed; `missing` says why."""

    metric: str
    role: str
    estimand: str
    arm: str
    higher_is_better: bool = True
    control: Estimate | None = None
    treatment: Estimate | None = None
    difference: Difference | None = None
    lift: Lift | None = None
    belief: Belief | None = None
    non_inferiority: NonInferiority | None = None
    decided: Decided | None = None  # of the primary metric: by the declared way of looking
    adjusted: Adjusted | None = None  # within the family of secondary metrics, or of segments
    detectable_lift: float | None = None  # with 80 % power, by the users so far
    capped_share: float = 0.0
    missing: str = ""


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """The primary metric for cold or warm readers, fixed at first exposure."""

    segment: str
    comparison: Comparison
    interaction_p_value: float | None = None  # is the effect another one than the other segment's? corrected for arms
    interaction: Interaction | None = None  # of cold beside warm readers, and on which scale they are compared


def compare_metrics(tally: Tally, analysis: Analysis) -> list[Comparison]:
    """By arm, then in the file's order.

    Two families: the primary metric in all arms, by Bonferroni, because the level of a sequential decision must stand
    before its data do; secondary metrics in all arms, as `analysis.correction` says. Guardrails are in none: each must
    hold, so more of them make no false alarm of success (Schultzberg, Ankargren, Fraanberg 2024).
    """
    level = msgspec.structs.replace(analysis, alpha=primary_alpha(analysis))
    numbers = range(len(analysis.metrics))
    rows = [
        _compare(tally, level if number == primary(analysis) else analysis, number, arm, lambda key: True)
        for arm in analysis.arms[1:]
        for number in numbers
    ]
    rows = [_among_arms(row, analysis) for row in rows]
    return _with_family(tally, analysis, rows)


def compare_with_bots(tally: Tally, analysis: Analysis) -> list[Comparison]:
    """The primary metric by arm, with the readers taken for bots; nothing where there are none.

    An answer that turns with them rests on who was taken for one.
    """
    if not any(cell.bots for cell in tally.cells.values()):
        return []
    level = msgspec.structs.replace(analysis, alpha=primary_alpha(analysis))
    rows = [_compare(tally.with_bots(), level, primary(analysis), arm, lambda key: True) for arm in analysis.arms[1:]]
    return [msgspec.structs.replace(row, decided=None, detectable_lift=None) for row in rows]


def primary_alpha(analysis: Analysis) -> float:
    """The level of the primary metric in one arm: an equal share for each arm but the control."""
    return analysis.alpha / (len(analysis.arms) - 1)


def compare_segments(tally: Tally, analysis: Analysis) -> list[Segment]:
    """By arm, then segment: one family, corrected by Benjamini-Hochberg; whether segments differ is another (Holm)."""
    rows = [row for arm in analysis.arms[1:] for row in _segments(tally, analysis, arm)]
    known = {n: row.comparison.difference for n, row in enumerate(rows) if row.comparison.difference}
    p_values = [found.p_value for found in known.values()]
    corrected = adjust(p_values, alpha=analysis.alpha, correction="benjamini-hochberg")
    for at, adjusted in zip(known, corrected, strict=True):
        row, wanted = rows[at].comparison, _of_segment(rows[at].segment)
        stricter = _at_level(tally, analysis, primary(analysis), row, adjusted, wanted)
        rows[at] = msgspec.structs.replace(rows[at], comparison=stricter)
    return _interactions_corrected(rows, analysis)


def _interactions_corrected(rows: Sequence[Segment], analysis: Analysis) -> list[Segment]:
    tests = {row.comparison.arm: row.interaction.p_value for row in rows if row.interaction}
    corrected = dict(zip(tests, adjust(list(tests.values()), alpha=analysis.alpha), strict=True))
    return [
        msgspec.structs.replace(row, interaction_p_value=corrected[row.comparison.arm].p_value)
        if row.comparison.arm in corrected
        else row
        for row in rows
    ]


def _among_arms(row: Comparison, analysis: Analysis) -> Comparison:
    arms = len(analysis.arms) - 1
    if row.role != "primary" or row.difference is None or arms == 1:
        return row
    return msgspec.structs.replace(row, adjusted=bonferroni(row.difference.p_value, arms, alpha=analysis.alpha))


def _with_family(tally: Tally, analysis: Analysis, rows: Sequence[Comparison]) -> list[Comparison]:
    """Secondary metrics again, at the levels that belong to their corrected tests."""
    family = {n: row.difference for n, row in enumerate(rows) if row.role == "secondary" and row.difference}
    p_values = [found.p_value for found in family.values()]
    corrected = dict(zip(family, adjust(p_values, alpha=analysis.alpha, correction=analysis.correction), strict=True))
    number = {metric.name: n for n, metric in enumerate(analysis.metrics)}
    return [
        _at_level(tally, analysis, number[row.metric], row, corrected[n], lambda key: True) if n in corrected else row
        for n, row in enumerate(rows)
    ]


def _at_level(
    tally: Tally, analysis: Analysis, number: int, row: Comparison, adjusted: Adjusted, wanted: Wanted
) -> Comparison:
    """The intervals again at the level that belongs to the corrected test."""
    stricter = msgspec.structs.replace(analysis, alpha=adjusted.alpha)
    again = _compare(tally, stricter, number, row.arm, wanted)
    return msgspec.structs.replace(row, difference=again.difference, lift=again.lift, adjusted=adjusted)


def _compare(tally: Tally, analysis: Analysis, number: int, arm: str, wanted: Wanted) -> Comparison:
    metric = analysis.metrics[number]
    named = Comparison(
        metric=metric.name,
        role=metric.role,
        estimand=estimand(metric),
        arm=arm,
        higher_is_better=metric.higher_is_better,
    )
    try:
        pair = estimate_pair(tally, metric, number, (analysis.control, arm), wanted)
        found = difference(pair.control, pair.treatment, alpha=analysis.alpha)
    except NotEnoughData as error:
        return msgspec.structs.replace(named, missing=str(error))
    missing: list[str] = []
    lift = _or_missing(lambda: relative_lift(pair.control, pair.treatment, alpha=analysis.alpha), missing)
    total = tally.total(lambda key: key.arm in (analysis.control, arm) and wanted(key))
    return msgspec.structs.replace(
        named,
        control=pair.control,
        treatment=pair.treatment,
        difference=found,
        lift=lift,
        belief=_or_missing(lambda: _belief(pair, found), missing) if lift else None,
        non_inferiority=_or_missing(lambda: _guardrail(pair, metric, analysis.alpha), missing),
        decided=decide(tally, analysis, arm, pair) if metric.role == "primary" else None,
        detectable_lift=_or_missing(lambda: _detectable(pair, metric, analysis), missing),
        capped_share=total.capped[number] / max(1, total.moments[number].count),
        missing="; ".join(missing),
    )


def estimand(metric: Metric) -> str:
    """What the figure is a figure of, in words."""
    counted = f"{metric.numerator.aggregate} of {metric.numerator.of}"
    if metric.quantile is not None:
        return f"the {metric.quantile:g} quantile over readers of the {counted}"
    if metric.denominator is None:
        return f"the mean over readers of the {counted}"
    return f"all readers' {counted} by all readers' {metric.denominator.aggregate} of {metric.denominator.of}"


def _or_missing(compute: Callable[[], Found], missing: list[str]) -> Found | None:
    try:
        return compute()
    except NotEnoughData as error:
        missing.append(str(error))
        return None


def _belief(pair: Pair, found: Difference) -> Belief:
    base = pair.control.unadjusted
    return belief(found.value / base, found.standard_error / abs(base))


def _guardrail(pair: Pair, metric: Metric, alpha: float) -> NonInferiority | None:
    if metric.margin is None:
        return None
    return non_inferiority(
        pair.control, pair.treatment, margin=metric.margin, alpha=alpha, higher_is_better=metric.higher_is_better
    )


def _detectable(pair: Pair, metric: Metric, analysis: Analysis) -> float:
    """Of the primary metric by the declared way of looking, of all others at one look."""
    users = pair.control.count + pair.treatment.count
    share = pair.treatment.count / users
    chance = chance_to_decide(analysis) if metric.role == "primary" else None
    return detectable_lift(pair.control, users=users, treatment_share=share, alpha=analysis.alpha, chance=chance)


def _of_segment(name: str) -> Wanted:
    return lambda key: key.cold is SEGMENTS[name]


def _segments(tally: Tally, analysis: Analysis, arm: str) -> list[Segment]:
    number = primary(analysis)
    rows = {name: _large(_compare(tally, analysis, number, arm, _of_segment(name))) for name in SEGMENTS}
    found = _interaction(list(rows.values()), analysis.alpha)
    return [Segment(segment=name, comparison=row, interaction=found) for name, row in rows.items()]


def _interaction(rows: Sequence[Comparison], alpha: float) -> Interaction | None:
    effects = [Effect(row.control, row.treatment) for row in rows if row.control and row.treatment]
    if len(effects) < len(rows):
        return None
    return _or_missing(lambda: interaction(*effects, alpha=alpha), [])


def _large(row: Comparison) -> Comparison:
    """A segment of few readers has intervals that its test does not keep."""
    if row.control and row.treatment and min(row.control.count, row.treatment.count) >= MIN_STRATUM_USERS:
        return row
    missing = row.missing or f"fewer than {MIN_STRATUM_USERS} readers in an arm"
    return Comparison(metric=row.metric, role=row.role, estimand=row.estimand, arm=row.arm, missing=missing)
