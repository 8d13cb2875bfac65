"""The report as data: what `report.json` holds, and what the page and the table are drawn from. Pure."""

from typing import Final

import msgspec

from offline.experiments.check import Check
from offline.experiments.definition import Analysis
from offline.experiments.fold import FoldCounts
from offline.experiments.interference import CAVEAT
from offline.experiments.metric_rows import (
    Comparison,
    Segment,
    compare_metrics,
    compare_segments,
    compare_with_bots,
    primary_alpha,
)
from offline.experiments.novelty import Novelty, novelty
from offline.experiments.path import PathPoint, path, primary
from offline.experiments.recall_path import PlaceRow, place_rows
from offline.experiments.tally import Tally
from offline.experiments.trust import LogCounts, blocked, trust_checks
from offline.experiments.verdict import Verdict, verdict

REPORT_VERSION: Final = "1.1"  # of report.json and offpolicy.json: the second number grows with each added field
WITHHELD: Final = "a check failed"


class LogInput(msgspec.Struct, frozen=True, kw_only=True):
    """Which files a report was made of."""

    files: int = 0
    size_bytes: int = 0
    names_and_sizes_sha256: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of one experiment. Stable: fields are added, never renamed. Times are UTC milliseconds, shares are
    between 0 and 1; null is what could not be computed, and `missing` beside it says why."""

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
    with_bots: list[Comparison] = []  # the primary metric once more, with the readers taken for bots
    version: str = REPORT_VERSION  # of this form


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
    comparisons = compare_metrics(tally, analysis)
    at_level = msgspec.structs.replace(analysis, alpha=primary_alpha(analysis))
    users = {arm: tally.total(lambda key, arm=arm: key.arm == arm).exposed for arm in analysis.arms}  # type: ignore[misc]
    report = Report(
        experiment=analysis.experiment.name,
        control=analysis.control,
        alpha=analysis.alpha,
        decision=analysis.decision,
        window_days=analysis.window_days,
        users=users,
        verdicts={arm: verdict([c for c in comparisons if c.arm == arm], checks) for arm in analysis.arms[1:]},
        trust=checks,
        comparisons=comparisons,
        segments=compare_segments(tally, analysis),
        path={arm: path(tally, at_level, arm) for arm in analysis.arms[1:]},
        log=log,
        rows=tally.counts,
        watermark_ms=watermark_ms,
        input=given,
        novelty={arm: _novelty(tally, analysis, arm) for arm in analysis.arms[1:]},
        caveats=[CAVEAT],
        places=place_rows(tally.recall, list_age_hours=analysis.list_age_hours, alpha=analysis.alpha),
        with_bots=compare_with_bots(tally, analysis),
    )
    return withheld(report) if blocked(checks) else report


def withheld(report: Report) -> Report:
    """What is left of a blocked report: readers, rows and checks, for whoever looks for the fault.

    Nothing in it tells the arms' outcomes apart, nor the numbers that they could be told apart from: who has them has
    an answer, whatever the verdict says.
    """
    return msgspec.structs.replace(
        report,
        comparisons=[_blank(row) for row in report.comparisons],
        segments=[Segment(segment=row.segment, comparison=_blank(row.comparison)) for row in report.segments],
        path={arm: [_blank_point(point) for point in points] for arm, points in report.path.items()},
        novelty={arm: Novelty(readers=found.readers, missing=WITHHELD) for arm, found in report.novelty.items()},
        places=[],
        with_bots=[],
    )


def _blank(row: Comparison) -> Comparison:
    return Comparison(
        metric=row.metric,
        role=row.role,
        estimand=row.estimand,
        arm=row.arm,
        higher_is_better=row.higher_is_better,
        missing=WITHHELD,
    )


def _blank_point(point: PathPoint) -> PathPoint:
    return PathPoint(day=point.day, users=point.users, missing=WITHHELD)


def _novelty(tally: Tally, analysis: Analysis, arm: str) -> Novelty:
    metric = analysis.metrics[primary(analysis)]
    return novelty(tally.recall.ages, metric, (analysis.control, arm), alpha=analysis.alpha)
