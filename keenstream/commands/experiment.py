"""`keenstream experiment analyse | power | offpolicy`: did it help, for whom, and can the answer be trusted.

Exit code 3: the log may not be read as an answer (a failed check, a deterministic log); the report says why.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keenstream.commands.console import JSON_OPTION, console, count_progress, print_json
from schemas.errors import KeenstreamError

if TYPE_CHECKING:  # Beam, duckdb and scipy load when a command runs
    from offline.experiments.definition import Analysis
    from offline.experiments.report import Report
    from offline.experiments.runners import RunnerSettings

BLOCKED = 3  # exit code

app = typer.Typer(no_args_is_help=True, help="Logged experiments: analysis, power, other policies.")

Config = Annotated[Path, typer.Argument(help="The analysis: experiment, metrics, columns (TOML).")]
Log = Annotated[Path, typer.Option("--log", help="Folder with exposures and outcomes, as the archive writes them.")]
Out = Annotated[Path, typer.Option("--out", help="Where the report is written.")]
Runner = Annotated[str, typer.Option(help="A Beam runner: FnApiRunner, PortableRunner, DaskRunner, FlinkRunner, ...")]
Workers = Annotated[int, typer.Option(min=1, help="Processes of the FnApiRunner.")]
BeamOptions = Annotated[list[str], typer.Option("--beam", help="An option for Beam, such as --job_endpoint=HOST:PORT.")]


@app.command("analyse")
def analyse(
    config: Config,
    log: Log,
    out: Out,
    runner: Runner = "FnApiRunner",
    workers: Workers = 1,
    beam: BeamOptions = [],  # noqa: B006  # typer copies it
    as_json: bool = JSON_OPTION,
) -> None:
    """Analyse a logged experiment: report.json, and bad rows in quarantine/. Exit code 3: a check blocks the answer.

    Example: `keenstream experiment analyse path.toml --log archive --out report --workers 2`
    """
    import time

    from offline.experiments.analyse import analyse as run
    from offline.experiments.definition import read_analysis

    analysis = read_analysis(config)
    settings = _settings(runner, workers, beam)
    with _progress() as progress:
        report = run(analysis, log, out, now_ms=int(time.time() * 1000), settings=settings, progress=progress)
    if as_json:
        print_json(report)
    else:
        _print_report(report, out)
    _judge(report, analysis, out)


def _judge(report: "Report", analysis: "Analysis", out: Path) -> None:
    """The exit code: 1 for a log with too many bad rows, 3 for another check that blocks the answer."""
    from offline.experiments.quarantine import FOLDER
    from offline.experiments.trust import blocked

    log = report.log
    if log.quarantined > analysis.trust.max_quarantined_share * log.rows:
        raise KeenstreamError(
            f"{log.quarantined:,} of {log.rows:,} rows are bad, more than trust.max_quarantined_share = "
            f"{analysis.trust.max_quarantined_share:.2%}: {out / FOLDER} says which and why"
        )
    if blocked(report.trust):
        raise typer.Exit(BLOCKED)


def _print_report(report: "Report", out: Path) -> None:
    for arm, verdict in report.verdicts.items():
        console.print(f"{arm}: {verdict.sentence}", markup=False, soft_wrap=True)
    console.print(f"written to {out}", markup=False, soft_wrap=True)


def _settings(runner: str, workers: int, beam: list[str]) -> "RunnerSettings":
    from offline.experiments.runners import RunnerSettings

    return RunnerSettings(runner=runner, workers=workers, options=tuple(beam))


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """One bar for each step."""
    with count_progress() as progress:
        tasks: dict[str, object] = {}

        def update(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = progress.add_task(step, total=total)
            progress.update(tasks[step], completed=done, total=total)  # type: ignore[arg-type]

        yield update
