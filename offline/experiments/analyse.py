"""One analysis from files to files: plan, run the job, write the report. The command is a thin shell around this."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import apache_beam as beam
import msgspec

from offline.experiments.definition import Analysis
from offline.experiments.delivery import arrival_column
from offline.experiments.job import build_pipeline
from offline.experiments.log_columns import Column, Kind, covariate_columns, log_columns
from offline.experiments.log_files import Part, Slice, cut_files, find_files, make_parts
from offline.experiments.plan import Plan, buckets_for
from offline.experiments.quarantine import FOLDER
from offline.experiments.report import LogInput, Report, build_report
from offline.experiments.tally import Tally
from offline.experiments.tally_file import Totals, read_totals
from offline.passing_folder import passing_folder
from offline.runners import RunnerSettings, run_beam
from schemas.errors import UsageError

PART_ROWS: Final = 1_000_000
_POLL_SECONDS: Final = 0.5

Build = Callable[[beam.Pipeline, Plan], Any]
Progress = Callable[[str, int, int], None]  # a step, how much of it is done, of how much


def analyse(
    analysis: Analysis,
    log: Path,
    out: Path,
    *,
    now_ms: int,
    settings: RunnerSettings = RunnerSettings(),  # noqa: B008  # frozen
    progress: Progress = lambda step, done, total: None,
) -> Report:
    """Writes report.json, report.html and, when there are bad rows, quarantine/*.parquet below `out`; scratch
    files do not stay.

    The same log and analysis give the same bytes. Raises UsageError for files, columns and settings that are wrong.
    """
    from offline.experiments.page import write_report  # with matplotlib, that only this needs

    totals, given = _add_up(analysis, log, out, now_ms, settings, progress)
    report = build_report(totals.tally, analysis, totals.log, watermark_ms=totals.watermark_ms, given=given)
    write_report(report, out)
    return report


def read_tally(
    analysis: Analysis,
    log: Path,
    out: Path,
    *,
    now_ms: int,
    settings: RunnerSettings = RunnerSettings(),  # noqa: B008  # frozen
    progress: Progress = lambda step, done, total: None,
) -> Tally:
    """Only the cells, without a report."""
    return _add_up(analysis, log, out, now_ms, settings, progress)[0].tally


def _add_up(
    analysis: Analysis, log: Path, out: Path, now_ms: int, settings: RunnerSettings, progress: Progress
) -> tuple[Totals, LogInput]:
    with scratch_folder(out) as scratch:
        plan, given = make_plan(analysis, log, out, scratch, now_ms, covariate_columns(analysis))
        run_pipeline(plan, build_pipeline, settings, progress)
        return read_totals(plan.result_path), given


def make_plan(
    analysis: Analysis, log: Path, out: Path, scratch: Path, now_ms: int, extra: Sequence[Column] = ()
) -> tuple[Plan, LogInput]:
    """All files found, their columns checked; nothing of them is read yet. `extra`: further columns of exposures."""
    if not log.is_dir():
        raise UsageError(f"--log {log} is no folder")
    columns = {kind: log_columns(kind, analysis.log) for kind in _KINDS}
    columns["exposures"] += extra
    columns["outcomes"].append(arrival_column(analysis.log.arrived_at))
    files = {kind: find_files(log, _place(analysis, kind)) for kind in _KINDS}
    if not files["exposures"]:
        raise UsageError(f"there are no exposures at {log / analysis.log.exposures}: Parquet, JSONL or CSV files")
    slices: dict[Kind, list[Slice]] = {kind: cut_files(files[kind], columns[kind]) for kind in _KINDS}
    parts: list[Part] = []
    for kind in _KINDS:
        parts += make_parts(kind, slices[kind], part_rows=PART_ROWS, first=len(parts))
    plan = Plan(
        analysis=analysis,
        exposure_columns=tuple(columns["exposures"]),
        outcome_columns=tuple(columns["outcomes"]),
        parts=tuple(parts),
        buckets=buckets_for(sum(part.rows for part in parts)),
        scratch=str(scratch),
        quarantine=str(_emptied(out / FOLDER)),
        now_ms=now_ms,
    )
    return plan, _input(log, [path for kind in _KINDS for path in files[kind]])


def run_pipeline(plan: Plan, build: Build, settings: RunnerSettings, progress: Progress) -> None:
    """Blocks until the runner is done. UsageError for a file that broke while it was read."""
    with _watched(plan, progress):
        run_beam(lambda pipeline: build(pipeline, plan), settings)
    if plan.fault_path.is_file():
        raise UsageError(plan.fault_path.read_text(encoding="utf-8"))


@contextmanager
def scratch_folder(out: Path) -> Iterator[Path]:
    """Below `out`, which all workers see; gone afterwards, also when the run was broken off."""
    with passing_folder(out, "_scratch-") as scratch:
        for name in ("splits", "users"):
            (scratch / name).mkdir()
        yield scratch


_KINDS: Final[tuple[Kind, Kind]] = ("exposures", "outcomes")


def _place(analysis: Analysis, kind: Kind) -> str:
    return analysis.log.exposures if kind == "exposures" else analysis.log.outcomes


def _emptied(folder: Path) -> Path:
    """Without the files of an earlier run."""
    for path in folder.glob("*.parquet"):
        path.unlink()
    return folder.absolute()


def _input(log: Path, files: list[Path]) -> LogInput:
    sizes = [(str(path.relative_to(log)), path.stat().st_size) for path in files]
    digest = hashlib.sha256(msgspec.json.encode(sorted(sizes))).hexdigest()
    return LogInput(files=len(files), size_bytes=sum(size for _, size in sizes), names_and_sizes_sha256=digest)


@contextmanager
def _watched(plan: Plan, progress: Progress) -> Iterator[None]:
    """Tells `progress` what the scratch folder holds: the same on every runner."""
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(plan, progress, done), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _watch(plan: Plan, progress: Progress, done: threading.Event) -> None:
    scratch = Path(plan.scratch)
    while not done.wait(_POLL_SECONDS):
        split = len({path.name[:6] for path in (scratch / "splits").glob("*.arrow")})
        folded = sum(1 for _ in (scratch / "users").glob("*.arrow"))
        progress("reading the log", split, len(plan.parts))
        progress("folding readers", folded, plan.buckets)
