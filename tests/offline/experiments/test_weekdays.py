"""Every weekday as often as any other: days without readers and half days are found and named."""

from collections.abc import Sequence

import pytest

from offline.experiments.check import Check
from offline.experiments.counting import DAY_MS
from offline.experiments.tally import Cell, CellKey, Tally
from offline.experiments.weekdays import whole_weeks
from tests.offline.experiments.log_rows import ANALYSIS, START_MS

HOUR_MS = DAY_MS // 24


def checked(days: Sequence[int], watermark_ms: int = 0) -> Check:
    cells = {CellKey(0, day, arm, False): Cell(exposed=5, moments=()) for day in days for arm in ANALYSIS.arms}
    return whole_weeks(Tally(cells), ANALYSIS, watermark_ms)


def test_two_whole_weeks() -> None:
    found = checked(range(14), START_MS + 14 * DAY_MS - HOUR_MS)
    assert (found.status, found.sentence) == ("passed", "14 days of first exposures")


def test_a_span_of_weeks_with_a_hole_names_the_days() -> None:
    found = checked([day for day in range(14) if day not in (3, 10)])
    assert found.status == "warning"
    assert "nobody on 2026-11-04 (Wed), 2026-11-11 (Wed)" in found.sentence
    assert "Tue 2, Wed 0, Thu 2" in found.sentence


def test_a_hole_in_every_weekday_is_a_hole() -> None:
    found = checked([*range(7), *range(14, 21)])
    assert found.status == "warning"
    assert "nobody on 2026-11-08 (Sun), 2026-11-09 (Mon), 2026-11-10 (Tue) and 4 more" in found.sentence


def test_half_a_week_more_is_named_by_weekday() -> None:
    found = checked(range(10))
    assert found.status == "warning"
    assert "Mon 2, Tue 2, Wed 1" in found.sentence  # the first of November 2026 is a Sunday


@pytest.mark.parametrize(("hours", "status"), [(2, "warning"), (13, "passed")])
def test_a_last_day_that_is_hardly_there_does_not_count(hours: int, status: str) -> None:
    assert checked(range(7), START_MS + 6 * DAY_MS + hours * HOUR_MS).status == status


def test_no_day_is_no_week() -> None:
    assert checked([]).status == "warning"
