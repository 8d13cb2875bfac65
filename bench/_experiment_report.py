"""What the calibration found, as a table and as a plot."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from bench._experiment_calibration import Figure, Kind, Status
from bench._experiment_scale import Measured
from bench._machine import Machine

_STYLES: Final[dict[Status, str]] = {"inside": "", "within error": "yellow", "outside": "bold red", "contrast": "dim"}
_COLOURS: Final[dict[Status, str]] = {
    "inside": "tab:green",
    "within error": "tab:orange",
    "outside": "tab:red",
    "contrast": "tab:gray",
}
_KINDS: Final[tuple[Kind, ...]] = ("false positives", "looks", "coverage", "power", "detection")
_INCHES_PER_ROW, _INCHES_WIDE = 0.24, 11.0


class CalibrationReport(msgspec.Struct, frozen=True, kw_only=True):
    """`outside` counts the figures that chance does not explain."""

    machine: Machine
    seed: int
    runs: int
    seconds: float
    outside: int
    figures: list[Figure]


class ScaleReport(msgspec.Struct, frozen=True, kw_only=True):
    """Rows are exposures; the engines of one log have folded the same readers."""

    machine: Machine
    seed: int
    runs: list[Measured]


def show_scale(report: ScaleReport, output: Console) -> None:
    """By log, each engine beside DuckDB; the start is what every run costs, however small its log."""
    titles = (
        "exposures",
        "engine",
        "rows/s",
        "CPU s",
        "start",
        "fold",
        "fold rows/CPU s",
        "peak MB",
        "fold by DuckDB's",
    )
    table = Table(*titles, title="Fold to readers")
    duckdb = {run.rows: run.fold_cpu_seconds for run in report.runs if run.engine == "DuckDB"}
    for run in report.runs:
        table.add_row(
            f"{run.rows:,}",
            run.engine,
            f"{run.rows_per_second:,.0f}",
            f"{run.cpu_seconds:,.1f}",
            f"{run.start_cpu_seconds:,.1f}",
            f"{run.fold_cpu_seconds:,.1f}",
            f"{run.rows_per_cpu_second:,.0f}",
            f"{run.peak_megabytes:,.0f}",
            f"{run.fold_cpu_seconds / duckdb[run.rows]:.1f}" if duckdb.get(run.rows) else "",
        )
    output.print(table)
    output.print(f"seed {report.seed}; {report.machine.processor}, {report.machine.cores} cores")


def show_calibration(report: CalibrationReport, output: Console) -> None:
    """All figures, by study."""
    table = Table("world", "figure", "measured", "± error", "wanted", "runs", "", title="Calibration of experiments")
    before = ""
    for row in report.figures:
        table.add_row(
            row.study if row.study != before else "",
            row.name,
            "never defined" if row.rate is None else f"{row.rate:.2%}",
            f"{row.error:.2%}",
            _wanted(row),
            f"{row.runs:,}",
            row.status if not row.note else f"{row.status}: {row.note}",
            style=_STYLES[row.status],
        )
        before = row.study
    output.print(table)
    judged = sum(row.status != "contrast" for row in report.figures)
    output.print(
        f"{judged - report.outside} of {judged} figures where they belong; seed {report.seed}, {report.seconds:.0f} s, "
        f"{report.machine.processor}, {report.machine.cores} cores"
    )


def plot_calibration(figures: Sequence[Figure], path: Path) -> None:
    """One panel for each kind: points with two Monte Carlo errors, the band that was wanted behind them."""
    from matplotlib.figure import Figure as Sheet

    kinds = [kind for kind in _KINDS if any(row.kind == kind for row in figures)]
    groups = [[row for row in figures if row.kind == kind and row.rate is not None] for kind in kinds]
    sheet = Sheet(figsize=(_INCHES_WIDE, _INCHES_PER_ROW * sum(len(rows) + 5 for rows in groups)), layout="constrained")
    panels = sheet.subplots(len(kinds), 1, squeeze=False, height_ratios=[len(rows) + 2 for rows in groups])
    for kind, rows, panel in zip(kinds, groups, panels[:, 0], strict=True):
        for place, row in enumerate(rows):
            if row.low is not None and row.high is not None:
                panel.barh(place, row.high - row.low, left=row.low, height=0.8, color="tab:blue", alpha=0.15)
            panel.errorbar(row.rate, place, xerr=2 * row.error, fmt="o", color=_COLOURS[row.status], markersize=4)
        panel.set_yticks(range(len(rows)), [f"{row.study}: {row.name}" for row in rows], fontsize=7)
        panel.invert_yaxis()
        panel.set_title(kind, fontsize=9, loc="left")
        panel.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    sheet.savefig(path, dpi=130)


def _wanted(row: Figure) -> str:
    if row.low is None or row.high is None:
        return ""
    if row.low == 0:
        return f"at most {row.high:.3g}"
    if row.high == 1:
        return f"at least {row.low:.3g}"
    return f"{row.low:.1%} to {row.high:.1%}"
