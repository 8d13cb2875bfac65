"""May the figures be read at all? Each check has a number, a limit, and a sentence; a failed one blocks the verdict."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from offline.experiments.balance import even_answers, even_history, even_outcomes, even_readers
from offline.experiments.check import Check, Status
from offline.experiments.definition import Analysis
from offline.experiments.interference import interference
from offline.experiments.moments import NotEnoughData
from offline.experiments.sample_ratio import chi_square, sequential_p_values
from offline.experiments.tally import Cell, Tally
from offline.experiments.weekdays import whole_weeks


class LogCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What reading the log found, besides the fold's own counts."""

    rows: int = 0
    quarantined: int = 0
    later: int = 0  # than the watermark: left for a later run
    outside: int = 0  # exposures of the holdout, of overridden readers, and before `starts_at`: history only
    assigned: int = 0  # readers whose first arm was compared with `assign_arm`
    reassigned: int = 0  # logged in another arm than that

    answers: dict[str, int] = {}  # of the experiment, by arm, with the bad ones
    dropped: dict[str, int] = {}  # answers with rows in the quarantine, by arm

    def __add__(self, other: "LogCounts") -> "LogCounts":
        return LogCounts(**{name: _sum(getattr(self, name), getattr(other, name)) for name in self.__struct_fields__})


def _sum(first: Any, second: Any) -> Any:
    """Of two numbers, or of two tables of them."""
    if isinstance(first, dict):
        return {name: first.get(name, 0) + second.get(name, 0) for name in sorted({*first, *second})}
    return first + second


def trust_checks(tally: Tally, analysis: Analysis, log: LogCounts, *, watermark_ms: int = 0) -> list[Check]:
    """In the order of a report; `watermark_ms` (UTC) is 0 when it is not known."""
    readers = _by_arm(tally, analysis)
    phases = sorted({key.phase for key in tally.cells})
    return [
        *(_sample_ratio(tally, analysis, phase) for phase in phases),
        *(_daily_sample_ratio(tally, analysis, phase) for phase in phases),
        *(_segment_sample_ratio(tally, analysis, phase) for phase in phases),
        _share("quarantined rows", log.quarantined, log.rows, analysis.trust.max_quarantined_share),
        _share("readers seen in several arms", *_crossed(tally), analysis.trust.max_crossover_share),
        _share(
            "exposures in another arm than assigned", log.reassigned, log.assigned, analysis.trust.max_reassigned_share
        ),
        *(even_readers(what, readers, count, analysis.trust) for what, count in _SHARES),
        even_answers(log.answers, log.dropped, analysis),
        *even_outcomes(tally, analysis),
        *(even_history(tally, analysis, arm) for arm in analysis.arms[1:]),
        *interference(tally, analysis),
        whole_weeks(tally, analysis, watermark_ms),
    ]


_SHARES: Final[tuple[tuple[str, Callable[[Cell], int]], ...]] = (
    ("readers seen in several arms", lambda cell: cell.crossed),
    ("readers whose window has not passed", lambda cell: cell.waiting),
    ("bots", lambda cell: cell.bots),
    ("triggered readers", lambda cell: cell.triggered),
)


def blocked(checks: Sequence[Check]) -> list[Check]:
    return [check for check in checks if check.status == "failed"]


def _weights(analysis: Analysis, phase: int) -> dict[str, float]:
    return analysis.experiment.phases[phase].weights


def _by_arm(tally: Tally, analysis: Analysis, phase: int | None = None, day: int | None = None) -> dict[str, Cell]:
    return {
        arm: tally.total(
            lambda key, arm=arm: key.arm == arm and phase in (None, key.phase) and day in (None, key.day)  # type: ignore[misc]
        )
        for arm in analysis.arms
    }


def _sample_ratio(tally: Tally, analysis: Analysis, phase: int) -> Check:
    name, limit = f"sample ratio, phase {phase}", analysis.trust.sample_ratio_p_value
    counts = {arm: cell.exposed for arm, cell in _by_arm(tally, analysis, phase).items()}
    try:
        found = chi_square(counts, _weights(analysis, phase))
    except NotEnoughData as error:
        return Check(name=name, status="not enough data", sentence=str(error))
    seen = ", ".join(f"{arm} {n:,} (expected {found.expected[arm]:,.0f})" for arm, n in counts.items())
    status: Status = "passed" if found.p_value >= limit else "failed"
    return Check(name=name, status=status, sentence=f"{seen}; p = {found.p_value:.2g}", value=found.p_value)


def _daily_sample_ratio(tally: Tally, analysis: Analysis, phase: int) -> Check:
    name = f"sample ratio by day, phase {phase}"
    days = sorted({key.day for key in tally.cells if key.phase == phase})
    counts = [{arm: c.exposed for arm, c in _by_arm(tally, analysis, phase, day).items()} for day in days]
    weights = {arm: weight for arm, weight in _weights(analysis, phase).items() if weight > 0}
    always = sequential_p_values(counts, weights)[-1]
    worst, day = _smallest([(_p_value(row, weights), day) for day, row in zip(days, counts, strict=True)])
    sentence = f"always-valid p = {always:.2g} over {len(days)} days; day {day} alone p = {worst:.2g}, of all days"
    p_value = min(always, worst)
    status: Status = "passed" if p_value >= analysis.trust.sample_ratio_p_value else "failed"
    return Check(name=name, status=status, sentence=sentence, value=p_value)


def _segment_sample_ratio(tally: Tally, analysis: Analysis, phase: int) -> Check:
    """Groups fixed at the first exposure: losses that cancel between them, or are small beside all, show here."""
    name, weights = f"sample ratio by group, phase {phase}", _weights(analysis, phase)
    groups = {"cold readers": True, "warm readers": False}
    counts = {
        group: {
            arm: tally.total(
                lambda key, arm=arm, cold=cold: (key.phase, key.arm, key.cold) == (phase, arm, cold)  # type: ignore[misc]
            ).exposed
            for arm in analysis.arms
        }
        for group, cold in groups.items()
    }
    p_value, group = _smallest([(_p_value(row, weights), group) for group, row in counts.items()])
    status: Status = "passed" if p_value >= analysis.trust.sample_ratio_p_value else "failed"
    seen = ", ".join(f"{arm} {n:,}" for arm, n in counts[group].items())
    return Check(name=name, status=status, sentence=f"{group}: {seen}; p = {p_value:.2g}", value=p_value)


_Label = TypeVar("_Label", str, int)


def _smallest(p_values: Sequence[tuple[float, _Label]]) -> tuple[float, _Label]:
    """The smallest of several p-values, corrected for having been picked (Bonferroni)."""
    p_value, label = min(p_values)
    return min(1.0, p_value * len(p_values)), label


def _p_value(counts: Mapping[str, int], weights: Mapping[str, float]) -> float:
    """1 where there are too few users for the test: they cannot speak against the weights."""
    try:
        return chi_square(counts, weights).p_value
    except NotEnoughData:
        return 1.0


def _share(what: str, part: int, whole: int, limit: float) -> Check:
    share = part / whole if whole else 0.0
    status: Status = "passed" if share <= limit else "failed"
    return Check(name=what, status=status, sentence=f"{part:,} of {whole:,}; at most {limit:.2%} allowed", value=share)


def _crossed(tally: Tally) -> tuple[int, int]:
    total = tally.total(lambda key: True)
    return total.crossed, total.exposed
