"""The page and the table: whole without a network, no figure where there is none, and no winner when it is blocked."""

import io
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

from offline.experiments.definition import Analysis
from offline.experiments.fold import FoldCounts
from offline.experiments.novelty import age_moments
from offline.experiments.page import render_page, write_report
from offline.experiments.places import PlaceKey, PlaceSums
from offline.experiments.recall_path import RecallPath
from offline.experiments.report import Report, build_report
from offline.experiments.tally import tally_users
from offline.experiments.terminal import print_report
from offline.experiments.trust import LogCounts
from tests.offline.experiments.log_rows import ANALYSIS
from tests.offline.experiments.worlds import replaced, users

ONE_BAD = LogCounts(rows=1_000, quarantined=50)


def whole(log: LogCounts = LogCounts(), analysis: Analysis = ANALYSIS, count: int = 4_000) -> Report:  # noqa: B008
    drawn = np.random.default_rng(1)
    arms = np.array(["control", "treatment"] * 200, dtype=object)
    rows = np.stack([drawn.poisson(1.0, (400, 7)), np.full((400, 7), 8.0)], axis=2)
    sums = PlaceSums(40, (800, 80, 20), (16_400, 1_640, 400, 200, 50, 20))
    places = {PlaceKey("treatment", "source", "<script>alert(1)</script>"): sums}
    tally = tally_users(users(1, count, lift=0.3), analysis.metrics, {}, FoldCounts(exposures=123_456))
    tally = msgspec.structs.replace(tally, recall=RecallPath(places, age_moments(rows, arms)))
    return build_report(tally, analysis, log)


def printed(report: Report) -> str:
    out = io.StringIO()
    print_report(report, Console(file=out, width=140))
    return out.getvalue()


def test_the_page_asks_nothing_of_the_network() -> None:
    page = render_page(whole())
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#)""", page.replace("xlink:href", "href"))
    assert not re.search(r"url\((?!#)|@import|<script|<link|<iframe", page)


def test_the_verdict_comes_first_and_each_part_is_there() -> None:
    page = render_page(whole())
    parts = ("ctr is better", "Can it be trusted?", "Metrics", "For whom", "Day by day", "Does it last?", "The log")
    at = [page.index(part) for part in parts]
    assert at == sorted(at)
    assert page.count('<svg role="img" aria-label=') == 4
    assert "123,456" in page


def test_names_from_the_log_are_escaped() -> None:
    assert "&lt;script&gt;alert(1)" in render_page(whole())


def test_the_same_report_is_the_same_page() -> None:
    report = whole()
    assert render_page(report) == render_page(report)


def test_a_blocked_report_shows_no_effect_and_no_winner() -> None:
    report = whole(ONE_BAD)
    for text in (render_page(report), printed(report)):
        assert "This log cannot be read" in text
        assert not re.search(r"better|worse|\+\d|<svg", text)


def test_the_data_of_a_blocked_report_tell_the_arms_apart_by_nothing() -> None:
    """What is left is the same whatever the effect was: only readers, rows and checks."""
    table = users(1, 4_000)
    found = []
    for gain in (1.0, 3.0):
        gained = [n * gain for n in table["numerator_0"].to_pylist()]
        tally = tally_users(replaced(table, "numerator_0", gained), ANALYSIS.metrics, {}, FoldCounts())
        found.append(build_report(tally, ANALYSIS, ONE_BAD))
    assert msgspec.json.encode(found[0]) == msgspec.json.encode(found[1])
    assert sum(found[0].users.values()) == 4_000
    assert {row.missing for row in found[0].comparisons} == {"a check failed"}
    assert [point.day for point in found[0].path["treatment"]] == list(range(14))


@pytest.mark.parametrize("count", [0, 1, 60])
def test_what_is_not_known_is_said_and_never_nan(count: int) -> None:
    report = whole(count=count)
    for text in (render_page(report), printed(report)):
        assert not re.search(r"\bnan\b|\binf\b|\bNone\b", text)
    assert count == 60 or "not enough data" in render_page(report)


def test_the_table_has_every_metric_and_both_segments() -> None:
    text = printed(whole())
    for name in (*(metric.name for metric in ANALYSIS.metrics), "cold readers", "warm readers"):
        assert name in text


def test_the_table_tells_what_the_path_brought_and_whether_it_lasts() -> None:
    text = " ".join(printed(whole()).split())
    assert "source <script>alert(1)</script>" in text
    assert "80 of 800" in text
    assert "25.0%" in text  # 20 of the 80
    assert "do cold and warm readers differ?" in text
    assert "The effect changes by" in text


def test_both_files_are_written_and_the_data_is_the_report(tmp_path: Path) -> None:
    report = whole()
    write_report(report, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]
    assert msgspec.json.decode((tmp_path / "report.json").read_bytes(), type=Report) == report
