"""Experiments: are the statistics right (`--calibration`), and how fast is the fold of a log?

    keenstream bench experiments --calibration --runs 4000 --plot calibration.png
    keenstream bench experiments --rows 1000000 --rows 10000000

The calibration draws thousands of worlds whose truth is known and counts how often each test is wrong and each interval
right. Without it, logs of the given numbers of exposures are written to a scratch folder, and the Beam job of
`keenstream experiment analyse` folds them, beside DuckDB and pandas which do the same fold on the same files.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from bench._experiment_calibration import run_studies
from bench._experiment_checks import check_studies
from bench._experiment_inference import inference_studies
from bench._experiment_log import write_log
from bench._experiment_looks import look_studies
from bench._experiment_offpolicy import offpolicy_studies
from bench._experiment_report import CalibrationReport, ScaleReport, plot_calibration, show_calibration, show_scale
from bench._experiment_scale import ENGINES, START_ROWS, Measured, measure_engine
from bench._experiment_truth import truth_studies
from bench._machine import this_machine
from keenstream.commands.console import count_progress
from schemas.errors import KeenstreamError, UsageError

console = Console(highlight=False, stderr=True)
output = Console(highlight=False, width=150)


def calibrate(runs: int, seed: int, workers: int | None = None) -> CalibrationReport:
    """Every study, `runs` worlds each (dear ones fewer, rare events more)."""
    studies = [*inference_studies(), *look_studies(), *offpolicy_studies(), *check_studies(), *truth_studies()]
    began = time.monotonic()
    with count_progress() as progress:
        task = progress.add_task("worlds", total=None)
        for done, total, found in run_studies(studies, runs=runs, seed=seed, workers=workers):
            progress.update(task, completed=done, total=total)
            figures = found
    return CalibrationReport(
        machine=this_machine(),
        seed=seed,
        runs=runs,
        seconds=round(time.monotonic() - began, 1),
        outside=sum(row.status == "outside" for row in figures),
        figures=figures,
    )


def measure_scale(sizes: Sequence[int], engines: Sequence[str], seed: int) -> ScaleReport:
    """Every engine on each log; KeenstreamError when they do not find the same."""
    runs: list[Measured] = []
    starts = {run.engine: run.cpu_seconds for run in _measure_log(START_ROWS, engines, seed, {})}
    for size in sizes:
        runs += _measure_log(size, engines, seed, starts)
    return ScaleReport(machine=this_machine(), seed=seed, runs=runs)


def _measure_log(size: int, engines: Sequence[str], seed: int, starts: Mapping[str, float]) -> list[Measured]:
    with TemporaryDirectory(prefix="keenstream-bench-") as scratch:
        console.print(f"writing about {size:,} exposures")
        rows, runs = write_log(Path(scratch), size, seed=seed), []
        for engine in engines:
            console.print(f"{engine}: {rows:,} exposures")
            runs.append(measure_engine(engine, Path(scratch), rows, starts.get(engine, 0.0)))
    if len({str(run.folded) for run in runs}) > 1:
        raise KeenstreamError(f"the engines do not agree on {rows:,} exposures: {runs}")
    return runs


def main(
    calibration: Annotated[bool, typer.Option("--calibration", help="Count wrong tests and right intervals.")] = False,
    runs: Annotated[int, typer.Option(min=20, help="Worlds of each study (calibration).")] = 4_000,
    plot: Annotated[Path | None, typer.Option(help="Draw the calibration there (PNG, SVG, PDF).")] = None,
    rows: Annotated[list[int], typer.Option(help="Exposures of a log; may be repeated.")] = [1_000_000, 10_000_000],  # noqa: B006
    engine: Annotated[list[str], typer.Option(help=f"Of {', '.join(ENGINES)}; default: all.")] = [],  # noqa: B006
    seed: Annotated[int, typer.Option(min=0)] = 7,
    json_path: Annotated[Path | None, typer.Option("--json", help="Also write the report there.")] = None,
) -> None:
    """Calibrate the statistics of experiments, or measure the fold. Exit code 1: a figure is outside of its band.

    Example: `keenstream bench experiments --calibration --runs 4000 --plot calibration.png`
    """
    if unknown := set(engine) - set(ENGINES):
        raise UsageError(f"there is no engine {min(unknown)}; there are {', '.join(ENGINES)}")
    report = calibrate(runs, seed) if calibration else measure_scale(rows, engine or list(ENGINES), seed)
    if json_path:
        json_path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    if isinstance(report, ScaleReport):
        show_scale(report, output)
        return
    show_calibration(report, output)
    if plot:
        plot_calibration(report.figures, plot)
    if report.outside:
        raise KeenstreamError(f"{report.outside} figures are outside of their bands by more than chance explains")


if __name__ == "__main__":
    typer.run(main)
