"""The report as data: what `report.json` holds, and what the page and the table are drawn from. Pure."""

from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeVar

import msgspec

from offline.experiments.bayes import Belief, belief
from offline.experiments.check import Check
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
from offline.experiments.fold import FoldCounts
from offline.experiments.interaction import Effect, Interaction, interaction
from offline.experiments.interference import CAVEAT
from offline.experiments.moments import NotEnoughData
from offline.experiments.multiplicity import Adjusted, adjust
from offline.experiments.novelty import Novelty, novelty
from offline.experiments.path import Decided, PathPoint, decide, path, primary
from offline.experiments.power import detectable_lift
from offline.experiments.recall_path import PlaceRow, place_rows
from offline.experiments.strata import MIN_STRATUM_USERS, Pair, Wanted, estimate_pair
from offline.experiments.tally import Tally
from offline.experiments.trust import LogCounts, blocked, trust_checks

Found = TypeVar("Found")
Judgement = Literal["blocked", "not enough data", "better", "worse", "no difference shown"]
SEGMENTS: Final[dict[str, bool]] = {"cold": True, "warm": False}


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One metric, one arm against the control. What is None could not be computed; `missing` says why."""

    metric: str
    role: str
    estimand: str
    arm: str
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
    interaction_p_value: float | None = None  # is the effect another one than the other segment's?
    interaction: Interaction | None = None  # of cold beside warm readers, and on which scale they are compared


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    judgement: Judgement
    sentence: str


class LogInput(msgspec.Struct, frozen=True, kw_only=True):
    """Which files a report was made of."""

    files: int = 0
    size_bytes: int = 0
    names_and_sizes_sha256: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Stable: fields are added, never renamed. Times are UTC milliseconds, shares are between 0 and 1."""

    experiment: str
    control: str
    alpha: float
    decision: str
    window_days: float
    users: dict[str, int]  # by arm, at first exposure
    verdicts: dict[str, Verdict]  # by arm
    trust: list[Check]
    comparisons: list[Comparison]
    segments: list[Segment]
    path: dict[str, list[PathPoint]]  # by arm: the primary metric after each day
    log: LogCounts
    rows: FoldCounts
    watermark_ms: int = 0  # what happened later is not in it
    input: LogInput = LogInput()
    novelty: dict[str, Novelty] = {}  # by arm: the effect by days since first exposure
    caveats: list[str] = []  # what no log of one experiment can tell
    places: list[PlaceRow] = []  # what was shown and clicked by source, query slot, age of the list, model, prompt


def build_report(
    tally: Tally,
    analysis: Analysis,
    log: LogCounts,
    *,
    watermark_ms: int = 0,
    given: LogInput = LogInput(),  # noqa: B008  # frozen
) -> Report:
    """Everything from the cells."""
    checks = trust_checks(tally, analysis, log, watermark_ms=watermark_ms)
    comparisons = [row for arm in analysis.arms[1:] for row in _comparisons(tally, analysis, arm)]
    segments = _all_segments(tally, analysis)
    if blocked(checks):
        comparisons = [_undecided(row) for row in comparisons]
        segments = [msgspec.structs.replace(row, comparison=_undecided(row.comparison)) for row in segments]
    users = {arm: tally.total(lambda key, arm=arm: key.arm == arm).exposed for arm in analysis.arms}  # type: ignore[misc]
    return Report(
        experiment=analysis.experiment.name,
        control=analysis.control,
        alpha=analysis.alpha,
        decision=analysis.decision,
        window_days=analysis.window_days,
        users=users,
        verdicts={arm: _verdict([c for c in comparisons if c.arm == arm], checks) for arm in analysis.arms[1:]},
        trust=checks,
        comparisons=comparisons,
        segments=segments,
        path={arm: path(tally, analysis, arm) for arm in analysis.arms[1:]},
        log=log,
        rows=tally.counts,
        watermark_ms=watermark_ms,
        input=given,
        novelty={arm: _novelty(tally, analysis, arm) for arm in analysis.arms[1:]},
        caveats=[CAVEAT],
        places=place_rows(tally.recall, list_age_hours=analysis.list_age_hours, alpha=analysis.alpha),
    )


def _novelty(tally: Tally, analysis: Analysis, arm: str) -> Novelty:
    metric = analysis.metrics[primary(analysis)]
    return novelty(tally.recall.ages, metric, (analysis.control, arm), alpha=analysis.alpha)


def _undecided(row: Comparison) -> Comparison:
    """Of a blocked report: what was measured stays, for whoever looks for the fault; that one is better is nowhere."""
    return msgspec.structs.replace(row, decided=None, belief=None, non_inferiority=None)


def _comparisons(tally: Tally, analysis: Analysis, arm: str) -> list[Comparison]:
    """In the file's order; secondary metrics are one family, corrected by Holm (Benjamini-Hochberg from ten on)."""
    rows = [_compare(tally, analysis, number, arm, lambda key: True) for number in range(len(analysis.metrics))]
    family = [n for n, row in enumerate(rows) if row.role == "secondary" and row.difference is not None]
    p_values = [row.difference.p_value for row in (rows[n] for n in family) if row.difference]
    corrected = adjust(p_values, alpha=analysis.alpha, correction="holm" if len(family) < 10 else "benjamini-hochberg")
    for number, adjusted in zip(family, corrected, strict=True):
        rows[number] = _at_level(tally, analysis, number, rows[number], adjusted, lambda key: True)
    return rows


def _at_level(
    tally: Tally, analysis: Analysis, number: int, row: Comparison, adjusted: Adjusted, wanted: Wanted
) -> Comparison:
    """The intervals again at the level that belongs to the corrected test."""
    stricter = msgspec.structs.replace(analysis, alpha=adjusted.alpha)
    again = _compare(tally, stricter, number, row.arm, wanted)
    return msgspec.structs.replace(row, difference=again.difference, lift=again.lift, adjusted=adjusted)


def _compare(tally: Tally, analysis: Analysis, number: int, arm: str, wanted: Wanted) -> Comparison:
    metric = analysis.metrics[number]
    named = Comparison(metric=metric.name, role=metric.role, estimand=estimand(metric), arm=arm)
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
        detectable_lift=_or_missing(lambda: _detectable(pair, analysis.alpha), missing),
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
    if metric.margin is None or not metric.higher_is_better:
        return None
    return non_inferiority(pair.control, pair.treatment, margin=metric.margin, alpha=alpha)


def _detectable(pair: Pair, alpha: float) -> float:
    users = pair.control.count + pair.treatment.count
    return detectable_lift(pair.control, users=users, treatment_share=pair.treatment.count / users, alpha=alpha)


def _all_segments(tally: Tally, analysis: Analysis) -> list[Segment]:
    """By arm, then segment: one family, corrected by Benjamini-Hochberg."""
    rows = [row for arm in analysis.arms[1:] for row in _segments(tally, analysis, arm)]
    known = [n for n, row in enumerate(rows) if row.comparison.difference is not None]
    p_values = [row.comparison.difference.p_value for row in rows if row.comparison.difference]
    corrected = adjust(p_values, alpha=analysis.alpha, correction="benjamini-hochberg")
    for at, adjusted in zip(known, corrected, strict=True):
        row, wanted = rows[at].comparison, _of_segment(rows[at].segment)
        stricter = _at_level(tally, analysis, primary(analysis), row, adjusted, wanted)
        rows[at] = msgspec.structs.replace(rows[at], comparison=stricter)
    return rows


def _of_segment(name: str) -> Wanted:
    return lambda key: key.cold is SEGMENTS[name]


def _segments(tally: Tally, analysis: Analysis, arm: str) -> list[Segment]:
    number = primary(analysis)
    rows = {name: _large(_compare(tally, analysis, number, arm, _of_segment(name))) for name in SEGMENTS}
    found = _interaction(list(rows.values()), analysis.alpha)
    p_value = found.p_value if found else None
    return [
        Segment(segment=name, comparison=row, interaction_p_value=p_value, interaction=found)
        for name, row in rows.items()
    ]


def _large(row: Comparison) -> Comparison:
    """A segment of few readers has intervals that its test does not keep."""
    if row.control and row.treatment and min(row.control.count, row.treatment.count) >= MIN_STRATUM_USERS:
        return row
    missing = row.missing or f"fewer than {MIN_STRATUM_USERS} readers in an arm"
    return Comparison(metric=row.metric, role=row.role, estimand=row.estimand, arm=row.arm, missing=missing)


def _interaction(rows: Sequence[Comparison], alpha: float) -> Interaction | None:
    effects = [Effect(row.control, row.treatment) for row in rows if row.control and row.treatment]
    if len(effects) < len(rows):
        return None
    return _or_missing(lambda: interaction(*effects, alpha=alpha), [])


def _verdict(comparisons: Sequence[Comparison], checks: Sequence[Check]) -> Verdict:
    failed = blocked(checks)
    if failed:
        reasons = "; ".join(f"{check.name}: {check.sentence}" for check in failed)
        return Verdict(judgement="blocked", sentence=f"This log cannot be read: {reasons}.")
    main = next(row for row in comparisons if row.role == "primary")
    if main.decided is None or main.difference is None:
        return Verdict(judgement="not enough data", sentence=f"Not enough data for {main.metric}: {main.missing}.")
    return _judged(main, main.decided, [row for row in comparisons if row.role == "guardrail"])


def _judged(main: Comparison, decided: Decided, guardrails: Sequence[Comparison]) -> Verdict:
    size = f"{main.lift.value:+.1%}" if main.lift else f"{decided.value:+.4g}"
    open_guardrails = [row.metric for row in guardrails if row.non_inferiority is None or not row.non_inferiority.holds]
    warning = f" Not shown to be unharmed: {', '.join(open_guardrails)}." if open_guardrails else ""
    if not decided.conclusive:
        return Verdict(
            judgement="no difference shown",
            sentence=f"{main.metric} shows no difference yet ({size}, and zero is inside the interval).{warning}",
        )
    judgement: Judgement = "better" if decided.better else "worse"
    return Verdict(judgement=judgement, sentence=f"{main.metric} is {judgement}: {size}.{warning}")
