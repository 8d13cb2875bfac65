"""What a report says on top: one judgement and one sentence for each arm."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from offline.experiments.check import Check
from offline.experiments.metric_rows import Comparison
from offline.experiments.path import Decided
from offline.experiments.trust import blocked

Judgement = Literal["blocked", "not enough data", "better", "worse", "no difference shown"]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    judgement: Judgement
    sentence: str


def verdict(comparisons: Sequence[Comparison], checks: Sequence[Check]) -> Verdict:
    """Of the comparisons of one arm."""
    failed = blocked(checks)
    if failed:
        reasons = "; ".join(f"{check.name}: {check.sentence}" for check in failed)
        return Verdict(judgement="blocked", sentence=f"This log cannot be read: {reasons}.")
    main = next(row for row in comparisons if row.role == "primary")
    if main.decided is None or main.difference is None:
        return Verdict(judgement="not enough data", sentence=f"Not enough data for {main.metric}: {main.missing}.")
    return _judged(main, main.decided, [row for row in comparisons if row.role == "guardrail"])


def _judged(main: Comparison, decided: Decided, guardrails: Sequence[Comparison]) -> Verdict:
    size = _size(main, decided)
    open_guardrails = [row.metric for row in guardrails if row.non_inferiority is None or not row.non_inferiority.holds]
    warning = f" Not shown to be unharmed: {', '.join(open_guardrails)}." if open_guardrails else ""
    if not decided.conclusive:
        return Verdict(
            judgement="no difference shown",
            sentence=f"{main.metric} shows no difference yet: {size}.{warning}",
        )
    judgement: Judgement = "better" if decided.better else "worse"
    return Verdict(judgement=judgement, sentence=f"{main.metric} is {judgement}: {size}.{warning}")


def _size(main: Comparison, decided: Decided) -> str:
    """With the interval that decides, not the point alone: what stopped early was lucky too, and overshoots. Relative
    to the control where that makes sense."""
    interval = decided.interval
    if main.lift is None or main.control is None:
        return f"{decided.value:+.4g} ({interval.low:+.4g} to {interval.high:+.4g})"
    base = main.control.unadjusted
    return f"{decided.value / base:+.1%} ({interval.low / base:+.1%} to {interval.high / base:+.1%})"
