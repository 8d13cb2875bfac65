"""Whole weeks: readers of a Sunday are others than those of a Monday, and every weekday must be there as often."""

from collections import Counter
from datetime import timedelta
from typing import Final

from offline.experiments.check import Check
from offline.experiments.counting import DAY_MS
from offline.experiments.definition import Analysis
from offline.experiments.tally import Tally

_WEEK: Final = 7
_WHOLE_DAY: Final = 0.5  # of the last day must be there for it to count
_NAMED: Final = 3  # days without anybody that are named one by one
_NAMES: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def whole_weeks(tally: Tally, analysis: Analysis, watermark_ms: int = 0) -> Check:
    """Days are of 24 hours since the experiment's start; a day counts when readers were first exposed on it, and the
    last one only when at least half of it lies before the watermark (UTC ms; 0: not known)."""
    days = _days(tally, analysis, watermark_ms)
    if not days:
        return Check(name="whole weeks", status="warning", sentence="no day has first exposures")
    span = max(days) - min(days) + 1
    gone = sorted(set(range(min(days), max(days) + 1)) - days)
    found = Counter(_weekday(analysis, day) for day in days)
    counts = [found[weekday] for weekday in range(_WEEK)]
    sentence = f"{span} days of first exposures"
    if gone:
        more = f" and {len(gone) - _NAMED} more" if len(gone) > _NAMED else ""
        sentence += f"; nobody on {', '.join(_date(analysis, day) for day in gone[:_NAMED])}{more}"
    if min(counts) != max(counts):
        often = ", ".join(f"{_NAMES[weekday]} {count}" for weekday, count in enumerate(counts))
        sentence += f"; by weekday: {often}"
    even = min(counts) == max(counts) and not gone
    return Check(name="whole weeks", status="passed" if even else "warning", sentence=sentence, value=float(span))


def _days(tally: Tally, analysis: Analysis, watermark_ms: int) -> set[int]:
    days = {key.day for key, cell in tally.cells.items() if cell.exposed}
    if days and watermark_ms:
        start_ms = analysis.experiment.phases[0].starts_at.timestamp() * 1000
        if watermark_ms - (start_ms + max(days) * DAY_MS) < _WHOLE_DAY * DAY_MS:
            days.remove(max(days))
    return days


def _weekday(analysis: Analysis, day: int) -> int:
    return (analysis.experiment.phases[0].starts_at + timedelta(days=day)).weekday()


def _date(analysis: Analysis, day: int) -> str:
    at = analysis.experiment.phases[0].starts_at + timedelta(days=day)
    return f"{at.date().isoformat()} ({_NAMES[at.weekday()]})"
