"""Is the log alike in all arms: who was dropped, what came late or was lost, and how readers were before it began.

Each check compares shares by arm, with the reader as the sampled unit, and is named by what it compares.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
import scipy  # its parts load when they are used, and no worker uses them

from offline.experiments.check import Check, Status
from offline.experiments.comparison import difference
from offline.experiments.definition import Analysis, Trust
from offline.experiments.delivery import share
from offline.experiments.estimates import Estimate
from offline.experiments.moments import Moments, NotEnoughData
from offline.experiments.strata import history_pair
from offline.experiments.tally import Cell, Tally


class Delivery(msgspec.Struct, frozen=True):
    """One share of the outcomes: `part` of `whole` are columns of delivery.py."""

    name: str
    part: str
    whole: str
    words: str  # after the shares
    missing: str  # when there is no `whole`
    lost: bool = True  # what one arm lacks more of than the other is an effect that the path does not have


DELIVERIES: Final = (
    Delivery("late outcomes", "late", "timed", "of outcomes came late", "the log does not say when rows came", False),
    Delivery("clicks lost", "clickless", "dwells", "of dwells have no click", "no dwell tells of a click"),
    Delivery(
        "outcomes without exposure",
        "unmatched",
        "named",
        "of outcomes name a request that is not in the log",
        "no outcome names a request",
    ),
    Delivery(
        "outcomes before exposure",
        "early",
        "matched",
        "of outcomes are dated before their exposure",
        "no outcome names an exposure",
    ),
)


def even_readers(what: str, cells: Mapping[str, Cell], count: Callable[[Cell], int], trust: Trust) -> Check:
    """A share of the readers that should not depend on the arm: Pearson's test of independence."""
    parts = {arm: count(cell) for arm, cell in cells.items()}
    found = _even(f"{what}, by arm", parts, {arm: cell.exposed for arm, cell in cells.items()})
    status: Status = "passed" if found.value is None or found.value >= trust.balance_p_value else "warning"
    return msgspec.structs.replace(found, status=status)


def even_answers(answers: Mapping[str, int], dropped: Mapping[str, int], analysis: Analysis) -> Check:
    """Answers whose rows went to the quarantine. They often have no reader: the answer is the unit, and the test is too
    sure of itself where one reader had many of them."""
    parts, wholes = ({arm: given.get(arm, 0) for arm in analysis.arms} for given in (dropped, answers))
    found = _even("quarantined answers, by arm", parts, wholes)
    shares = [parts[arm] / wholes[arm] for arm in analysis.arms if wholes[arm]]
    apart = max(shares) - min(shares) if shares else 0.0
    return msgspec.structs.replace(found, status=_loss_status(found.value, apart, analysis.trust))


def even_outcomes(tally: Tally, analysis: Analysis) -> list[Check]:
    """The shares of DELIVERIES, each arm's against the control's."""
    return [_even_outcomes(one, tally.delivery, analysis) for one in DELIVERIES]


def even_history(tally: Tally, analysis: Analysis, arm: str) -> Check:
    """The primary metric before the first exposure, where no difference can be of the experiment's making."""
    number = next(n for n, metric in enumerate(analysis.metrics) if metric.role == "primary")
    name = f"before the experiment, {arm}"
    try:
        pair = history_pair(tally, analysis.metrics[number], number, (analysis.control, arm), lambda key: True)
        p_value = difference(pair.control, pair.treatment).p_value
    except NotEnoughData as error:
        return Check(name=name, status="not enough data", sentence=str(error))
    status: Status = "passed" if p_value >= analysis.trust.balance_p_value else "warning"
    sentence = f"{analysis.metrics[number].name} differed with p = {p_value:.2g}"
    return Check(name=name, status=status, sentence=sentence, value=p_value)


def _even(name: str, parts: Mapping[str, int], wholes: Mapping[str, int]) -> Check:
    rest = {arm: wholes[arm] - parts[arm] for arm in parts}
    if not sum(parts.values()) or not sum(rest.values()) or not all(wholes.values()):
        return Check(name=name, status="passed", sentence="the same in every arm")
    p_value = float(scipy.stats.chi2_contingency([list(parts.values()), list(rest.values())]).pvalue)
    shares = ", ".join(f"{arm} {part / wholes[arm]:.2%}" for arm, part in parts.items())
    return Check(name=name, status="passed", sentence=f"{shares}; p = {p_value:.2g}", value=p_value)


def _even_outcomes(one: Delivery, delivery: Mapping[str, Moments], analysis: Analysis) -> Check:
    name = f"{one.name}, by arm"
    try:
        shares = [share(delivery.get(arm), one.part, one.whole) for arm in analysis.arms]
    except NotEnoughData:
        return Check(name=name, status="not enough data", sentence=one.missing)
    said = ", ".join(f"{arm} {found.value:.2%}" for arm, found in zip(analysis.arms, shares, strict=True))
    p_value = _smallest_p_value(shares)
    apart = max(found.value for found in shares) - min(found.value for found in shares)
    status = _loss_status(p_value, apart if one.lost else 0.0, analysis.trust)
    tested = "" if p_value is None else f"; p = {p_value:.2g}"
    late = f" (more than {analysis.trust.late_hours:g} h after they happened)" if one.part == "late" else ""
    return Check(name=name, status=status, sentence=f"{said} {one.words}{late}{tested}", value=p_value)


def _smallest_p_value(shares: Sequence[Estimate]) -> float | None:
    """Of the arms against the first, corrected for having been picked (Bonferroni); None where nothing varies."""
    control, *others = shares
    p_values = []
    for other in others:
        try:
            p_values.append(difference(control, other).p_value)
        except NotEnoughData:
            continue
    return min(1.0, min(p_values) * len(p_values)) if p_values else None


def _loss_status(p_value: float | None, apart: float, trust: Trust) -> Status:
    """A tiny difference that is certain warns; one that could be taken for an effect fails."""
    if p_value is None or p_value >= trust.balance_p_value:
        return "passed"
    return "failed" if apart > trust.max_loss_difference else "warning"
