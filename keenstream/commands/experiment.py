"""`keenstream experiment analyse | power | offpolicy`: did it help, for whom, and can the answer be trusted.

Exit code 2: the analysis or the log is wrong; 3: the log may not be read as an answer (a failed check, a deterministic
log), and the report says why.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keenstream.commands.console import JSON_OPTION, console, print_json, steps_progress
from schemas.errors import UsageError

if TYPE_CHECKING:  # Beam, duckdb and scipy load when a command runs
    from offline.experiments.definition import Analysis
    from offline.experiments.offpolicy import Value
    from offline.experiments.offpolicy_report import OffPolicyReport
    from offline.experiments.power_report import PowerReport
    from offline.experiments.report import Report
    from offline.experiments.tally import Tally
    from offline.experiments.trust import LogCounts
    from offline.runners import RunnerSettings

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
    """Analyse a logged experiment: report.html, report.json, bad rows in quarantine/. Exit code 3: a check failed.

    Example: `keenstream experiment analyse path.toml --log archive --out report --workers 2`
    """
    import time

    from offline.experiments.definition import read_analysis

    analysis, settings = read_analysis(config), _settings(runner, workers, beam)
    from offline.experiments.analyse import analyse as run

    with steps_progress() as progress:
        report = run(analysis, log, out, now_ms=int(time.time() * 1000), settings=settings, progress=progress)
    if as_json:
        print_json(report)
    else:
        _print_report(report, out)
    _judge(report, analysis, out)


@app.command("power")
def power(
    config: Config,
    log: Annotated[Path | None, typer.Option("--log", help="The log so far; or give --mean and --variance.")] = None,
    mean: Annotated[float | None, typer.Option(help="Guessed mean of the primary metric over readers.")] = None,
    variance: Annotated[float | None, typer.Option(help="Guessed variance over readers.")] = None,
    daily_users: Annotated[float | None, typer.Option(min=0, help="New readers a day, in both arms.")] = None,
    lift: Annotated[float, typer.Option(help="The relative lift that should be found.")] = 0.02,
    wanted: Annotated[float, typer.Option("--power", min=0.01, max=0.999, help="The chance to find it.")] = 0.8,
    runner: Runner = "FnApiRunner",
    workers: Workers = 1,
    beam: BeamOptions = [],  # noqa: B006  # typer copies it
    as_json: bool = JSON_OPTION,
) -> None:
    """Say how many readers and days the primary metric needs, and which lift the readers so far can show.

    Example: `keenstream experiment power path.toml --log archive --lift 0.03`
    """
    from offline.experiments.definition import read_analysis
    from offline.experiments.power_report import power_from_guess, power_from_log

    analysis = read_analysis(config)
    if log is not None:
        tally = _tally(analysis, log, _settings(runner, workers, beam))
        found = power_from_log(tally, analysis, lift=lift, power=wanted)
    elif mean is not None and variance is not None:
        found = power_from_guess(
            analysis, mean=mean, variance=variance, lift=lift, power=wanted, daily_users=daily_users
        )
    else:
        raise UsageError("give --log DIR, or both --mean and --variance")
    if as_json:
        print_json(found)
    else:
        for row in found:
            console.print(_power_sentence(row), markup=False, soft_wrap=True)


@app.command("offpolicy")
def offpolicy(
    config: Config,
    log: Log,
    out: Out,
    runner: Runner = "FnApiRunner",
    workers: Workers = 1,
    beam: BeamOptions = [],  # noqa: B006  # typer copies it
    as_json: bool = JSON_OPTION,
) -> None:
    """Judge other policies by a log of propensities: offpolicy.json. Exit code 3 when the log cannot bear a figure.

    Example: `keenstream experiment offpolicy path.toml --log archive --out report`
    """
    import time

    from offline.experiments.definition import read_analysis

    analysis, settings = read_analysis(config), _settings(runner, workers, beam)
    from offline.experiments.offpolicy_run import evaluate_policies

    with steps_progress() as progress:
        report = evaluate_policies(
            analysis, log, out, now_ms=int(time.time() * 1000), settings=settings, progress=progress
        )
    if as_json:
        print_json(report)
    else:
        _print_policies(report, out)
    _check_quarantine(report.log, analysis, out)
    if report.refused:
        raise typer.Exit(BLOCKED)


def _tally(analysis: "Analysis", log: Path, settings: "RunnerSettings") -> "Tally":
    import tempfile
    import time

    from offline.experiments.analyse import read_tally

    with tempfile.TemporaryDirectory() as scratch, steps_progress() as progress:
        return read_tally(
            analysis, log, Path(scratch), now_ms=int(time.time() * 1000), settings=settings, progress=progress
        )


def _power_sentence(row: "PowerReport") -> str:
    parts = [
        f"{row.arm}: {row.users_needed:,} readers in both arms find a lift of {row.lift:.1%} of {row.metric} "
        f"with a chance of {row.power:.0%} ({row.decision} at {1 - row.alpha:.3g})"
    ]
    if row.users is not None and row.detectable_lift is not None and row.power_so_far is not None:
        parts.append(
            f"the {row.users:,} of {row.days} days so far find it with {row.power_so_far:.0%}, "
            f"and {row.detectable_lift:.1%} with {row.power:.0%}"
        )
    still = row.days_still_needed
    if still is not None:
        parts.append("no more days are needed" if still == 0 else f"{still:,} more days at the present traffic")
    elif row.users is not None:
        parts.append("nobody new comes any more")
    return "; ".join(parts)


def _print_policies(report: "OffPolicyReport", out: Path) -> None:
    from rich.table import Table

    for policy in report.policies:
        console.print(f"{policy.policy}: {policy.status}: {policy.sentence}", markup=False, soft_wrap=True)
        if not policy.values:
            continue
        table = Table("estimator", "value", "interval", "change", "interval")
        apart = {row.estimator: row for row in policy.differences}
        for row in policy.values:
            other = apart.get(row.estimator)
            apart_cells = [f"{other.value:+.4f}", _interval(other, "+")] if other else []
            table.add_row(row.estimator, f"{row.value:.4f}", _interval(row), *apart_cells)
        console.print(table)
    console.print(f"written to {out}", markup=False, soft_wrap=True)


def _interval(row: "Value", sign: str = "") -> str:
    if row.estimator == "direct":
        return "by its model"  # its interval holds the readers' chance and not the model's error
    return f"{row.interval.low:{sign}.4f} to {row.interval.high:{sign}.4f}"


def _judge(report: "Report", analysis: "Analysis", out: Path) -> None:
    """The exit code: 2 for a log with too many bad rows or an empty arm, 3 for a check that blocks the answer."""
    from offline.experiments.trust import blocked

    _check_quarantine(report.log, analysis, out)
    _check_arms(report, analysis)
    if blocked(report.trust):
        raise typer.Exit(BLOCKED)


def _check_quarantine(log: "LogCounts", analysis: "Analysis", out: Path) -> None:
    from offline.experiments.quarantine import FOLDER, most_frequent

    if not log.quarantined:
        return
    folder = out / FOLDER
    said = f"{log.quarantined:,} of {log.rows:,} rows are bad: {most_frequent(folder)}; all are in {folder}"
    limit = analysis.trust.max_quarantined_share
    if log.quarantined > limit * log.rows:
        raise UsageError(f"{said}. More than trust.max_quarantined_share = {limit:.2%} fails the run")
    typer.echo(said, err=True)


def _check_arms(report: "Report", analysis: "Analysis") -> None:
    weights = {arm: max(phase.weights[arm] for phase in analysis.experiment.phases) for arm in analysis.arms}
    empty = [arm for arm, readers in report.users.items() if not readers and weights[arm] > 0]
    if empty:
        there = ", ".join(f"{arm} {readers:,}" for arm, readers in report.users.items())
        raise UsageError(
            f"no reader of the log is in {' or '.join(empty)} of the experiment {report.experiment} ({there}): compare "
            "the names in the analysis with the columns experiment and arm of the exposures"
        )


def _print_report(report: "Report", out: Path) -> None:
    from offline.experiments.terminal import print_report

    print_report(report, console)
    console.print(f"written to {out}", markup=False, soft_wrap=True)


def _settings(runner: str, workers: int, beam: list[str]) -> "RunnerSettings":
    from offline.runners import RunnerSettings

    return RunnerSettings(runner=runner, workers=workers, options=tuple(beam))
