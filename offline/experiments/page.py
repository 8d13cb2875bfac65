"""report.html: one file that asks nothing of the network, for a phone first; and both files of a report written."""

from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any, Final

import jinja2
import msgspec
from markupsafe import Markup

from offline.experiments import figures
from offline.experiments.metric_rows import Comparison
from offline.experiments.places import Dimension
from offline.experiments.report import Report
from offline.experiments.trust import blocked
from offline.experiments.whole_files import write_json, write_whole
from offline.experiments.wording import (
    NOTHING,
    interaction_words,
    metric_row,
    novelty_sentence,
    place_row,
    readable,
)

PAGE: Final = "report.html"
DATA: Final = "report.json"
_MARKS: Final = {"passed": "✓", "warning": "!", "failed": "✕", "not enough data": "·"}
_ORDER: Final = ("failed", "warning", "not enough data", "passed")
_HEADINGS: Final[dict[Dimension, str]] = {
    "all": "Exclusive recall",
    "source": "By source",
    "query slot": "By query slot",
    "list age": "By age of the list of queries",
    "model": "By model",
    "prompt": "By prompt version",
}


def write_report(report: Report, folder: Path) -> None:
    """`report.json` and `report.html` in `folder`, each whole or not at all."""
    write_json(folder / DATA, report)
    write_whole(folder / PAGE, render_page(report).encode())


def render_page(report: Report) -> str:
    """The same report gives the same bytes. When a check blocks the verdict no effect is on the page at all."""
    template = resources.files("offline.experiments").joinpath("report.html.j2").read_text(encoding="utf-8")
    engine = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    stopped = bool(blocked(report.trust))
    return engine.from_string(template).render(
        report=report,
        watermark=_moment(report.watermark_ms),
        blocked=stopped,
        checks=sorted(report.trust, key=lambda check: _ORDER.index(check.status)),
        marks=_MARKS,
        headings=_HEADINGS,
        places=_places(report),
        hygiene=_hygiene(report),
        **({} if stopped else _effects(report)),
    )


def _effects(report: Report) -> dict[str, Any]:
    several = len(report.verdicts) > 1
    segments = [
        (f"{row.segment} readers" + (f", {row.comparison.arm}" if several else ""), row.comparison)
        for row in report.segments
    ]
    segments += [("all readers, with bots" + (f", {row.arm}" if several else ""), row) for row in report.with_bots]
    metrics = [(row.metric + (f", {row.arm}" if several else ""), row) for row in report.comparisons]
    return {
        "metrics": [metric_row(name, row) for name, row in metrics],
        "lifts": _lifts(metrics),
        "segment_rows": [metric_row(name, row) for name, row in segments],
        "segments": _lifts(segments),
        "interactions": _interactions(report),
        "paths": {arm: _path(report, arm) for arm in report.verdicts},
        "ages": {arm: _ages(report, arm) for arm in report.verdicts},
    }


def _lifts(rows: list[tuple[str, Comparison]]) -> Markup:
    known = [(name, row.lift.value, row.lift.interval) for name, row in rows if row.lift]
    if not known:
        return Markup('<p class="soft">{}</p>').format(NOTHING)
    words = "; ".join(f"{name} {value:+.1%}, {i.low:+.1%} to {i.high:+.1%}" for name, value, i in known)
    return Markup(figures.intervals(known, f"Lifts with their intervals: {words}"))  # its text is escaped there


def _interactions(report: Report) -> list[str]:
    found = {row.comparison.arm: row.interaction for row in report.segments}
    return [
        f"{arm}: do cold and warm readers differ in the effect? {interaction_words(one)}" for arm, one in found.items()
    ]


def _path(report: Report, arm: str) -> Markup:
    known = [point for point in report.path.get(arm, []) if point.value is not None]
    if len(known) < 2:
        return Markup('<p class="soft">{}</p>').format(NOTHING)
    last = known[-1]
    alt = f"Difference of {arm} by day, {len(known)} days; after the last {last.value:+.4g}"
    return Markup(figures.over_days(known, alt))


def _ages(report: Report, arm: str) -> dict[str, Any]:
    found = report.novelty.get(arm)
    if found is None or not found.points:
        return {"svg": "", "sentence": novelty_sentence(found)}
    alt = f"Difference of {arm} by day since first exposure: " + ", ".join(f"{p.value:+.4g}" for p in found.points)
    return {"svg": Markup(figures.since_exposure(found, alt)), "sentence": novelty_sentence(found)}


def _places(report: Report) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for row in report.places:
        found.setdefault(row.dimension, []).append(place_row(row))
    return found


def _hygiene(report: Report) -> list[tuple[str, int]]:
    known = {**msgspec.structs.asdict(report.log), **msgspec.structs.asdict(report.rows)}
    counts = {name: count for name, count in known.items() if isinstance(count, int)}  # those by arm are in the checks
    return [(readable(name), count) for name, count in counts.items()]


def _moment(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC") if time_ms else "not known"
