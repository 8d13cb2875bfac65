"""How good the candidates are: recall of later clicks on simulated readers, beside every rival.

    keenstream bench quality --readers 300 --json quality.json

The protocol is told in offline/evaluate/protocol.py. One table for each width of the gap between what readers browse
and the news that they click; Recall@K is found / min(K, positives), with 95 % bootstrap intervals over readers. Models
are those that Triton serves: a running one (`--triton`), or one that is started for the length of the benchmark.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from bench._machine import Machine, this_machine
from offline.evaluate.cleaning import Cleaned, Gain, cleaned_by
from offline.evaluate.held_out import HeldOutReader
from offline.evaluate.metrics import Estimate
from offline.evaluate.protocol import SERVED, Row, Tuned, build_task, cleaning_rows, rows, tune, write_lists
from offline.evaluate.retrieval import VectorCache
from offline.simulate import SimulationSettings, checked
from schemas.article import Article
from schemas.clients.models import Cleaner, Student
from schemas.clients.triton import TritonCleaner, TritonEmbedder, TritonStudent
from schemas.config import Config, load_config
from schemas.errors import UsageError
from schemas.names import Model

READERS_SIMULATED = 4  # for each reported one: half of them tune, some have nothing to find, the rest are the crowd
WEIGHTS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5)
DEADLINE_SECONDS = 900.0  # of one prompt, waiting for all others before it included

GAPS = (0.0, 0.5, 1.0)

console = Console(highlight=False, stderr=True)  # progress
output = Console(highlight=False, width=150)  # tables keep their columns in a log file too


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One width of the gap: who was judged on what."""

    gap: float
    readers: int
    articles: int
    positives_per_reader: float
    lists_unusable: float | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was measured, and what it was measured with."""

    machine: Machine
    seed: int
    news: str
    student: str
    prompt_version: str  # that the student says it reads
    student_weight: float
    signal_weight: float
    seconds: float
    settings: tuple[Setting, ...]
    rows: tuple[Row, ...]
    tuned: tuple[Tuned, ...]
    cleaning: tuple[Gain, ...] = ()  # over the rules alone


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure."""

    simulation: SimulationSettings
    gaps: tuple[float, ...]
    readers: int
    tuning_readers: int
    with_student: bool
    with_cleaner: bool = False
    articles: Sequence[Article] | None
    news: str
    config: Config


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One width of the gap."""

    setting: Setting
    rows: list[Row]
    tuned: list[Tuned]
    cleaning: list[Gain]
    student: str
    prompt_version: str


async def measure(plan: Plan, triton: str) -> Report:
    """All tables, with the models behind this gRPC address."""
    started = time.monotonic()
    embedder = TritonEmbedder(triton, deadline_seconds=DEADLINE_SECONDS)
    student = TritonStudent(triton, deadline_seconds=DEADLINE_SECONDS) if plan.with_student else None
    cleaner = TritonCleaner(triton, deadline_seconds=DEADLINE_SECONDS) if plan.with_cleaner else None
    try:
        cache = VectorCache(embedder)
        widths = [await measure_gap(plan, gap, cache, student, cleaner) for gap in plan.gaps]
    finally:
        for client in (embedder, student, cleaner):
            if client:
                await client.close()
    return Report(
        machine=this_machine(),
        seed=plan.simulation.seed,
        news=plan.news,
        student=widths[-1].student,
        prompt_version=widths[-1].prompt_version,
        student_weight=plan.config.api.student_weight,
        signal_weight=plan.config.api.signal_weight,
        seconds=round(time.monotonic() - started, 1),
        settings=tuple(width.setting for width in widths),
        rows=tuple(row for width in widths for row in width.rows),
        tuned=tuple(row for width in widths for row in width.tuned),
        cleaning=tuple(row for width in widths for row in width.cleaning),
    )


async def measure_gap(
    plan: Plan, gap: float, cache: VectorCache, student: Student | None, cleaner: Cleaner | None = None
) -> Measured:
    """One simulation: every system on the reported readers, weights on the tuning readers.

    With a cleaner all of them are read as it leaves them, and the own signals also as the rules alone do.
    """
    task = await build_task(msgspec.structs.replace(plan.simulation, gap=gap), plan.articles, plan.config, cache)
    as_kept = task.split.of("reported", plan.readers)
    cleaned = await _cleaned(plan, cleaner, as_kept)
    reported = cleaned.readers
    tuning = (await _cleaned(plan, cleaner, task.split.of("tuning", plan.tuning_readers if student else 0))).readers
    if not reported:
        raise UsageError("no simulated reader has both a history and a later click: raise --readers or --events")
    console.print(
        f"gap {gap:g}: {len(reported)} readers to report, {len(tuning)} to tune on, {len(task.pool):,} articles"
    )
    max_queries = plan.config.interests.max_queries
    lists = await write_lists(student, [*reported, *tuning], max_queries=max_queries) if student else None
    positives = sum(len(reader.positives) for reader in reported) / len(reported)
    beside, gains = await cleaning_rows(task, as_kept, cleaned) if cleaner else ([], [])
    return Measured(
        setting=Setting(
            gap=gap,
            readers=len(reported),
            articles=len(task.pool),
            positives_per_reader=round(positives, 2),
            lists_unusable=lists.unusable if lists else None,
        ),
        rows=[*await rows(task, reported, lists), *beside],
        cleaning=gains,
        tuned=await tune(task, tuning, lists, WEIGHTS) if lists and tuning else [],
        student=lists.version if lists else "none",
        prompt_version=lists.prompt_version if lists else "",
    )


async def _cleaned(plan: Plan, cleaner: Cleaner | None, readers: list[HeldOutReader]) -> Cleaned:
    if cleaner is None or not readers:
        return Cleaned(readers, "", 0.0)
    return await cleaned_by(cleaner, readers, latest=plan.config.interests.cleaner_signals)


@contextmanager
def models(triton: str, with_student: bool, with_cleaner: bool) -> Iterator[str]:
    """The address given, or that of a Triton of our own with the models of this folder's state."""
    if triton:
        yield triton
        return
    from keenstream.stack.folders import state_folder
    from keenstream.stack.triton import triton_server
    from offline.release.models import build_models

    paths = build_models(state_folder(), console.print)
    wanted = {Model.STUDENT: with_student, Model.CLEANER: with_cleaner}
    names = [Model.EMBEDDER, *(name for name, asked in wanted.items() if asked)]
    with TemporaryDirectory(prefix="keenstream-quality-") as scratch:
        console.print("starting Triton")
        with triton_server(scratch, paths.repository, names, niceness=0) as server:
            yield server.grpc


def show(report: Report) -> None:
    """One table for each gap, best first."""
    for setting in report.settings:
        unusable = "" if setting.lists_unusable is None else f", {setting.lists_unusable:.1%} of lists unusable"
        table = Table(
            title=f"gap {setting.gap:g}: {setting.readers} readers, {setting.positives_per_reader} later clicks each, "
            f"{setting.articles:,} articles{unusable}"
        )
        for column in ("system", "Recall@10", "95 %", "Recall@50", "95 %", "nDCG@10", "MRR", "served - this (R@10)"):
            table.add_column(column, justify="left" if column == "system" else "right")
        of_gap = [row for row in report.rows if row.gap == setting.gap]
        for row in sorted(of_gap, key=lambda row: -row.recall_at_10.mean):
            table.add_row(*_cells(row), style="bold" if row.system == SERVED else "")
        output.print(table)
    for gain in report.cleaning:
        output.print(_told(gain))
    if report.tuned:
        output.print(_tuning_table(report.tuned))
    machine = report.machine
    reads = f" that reads {report.prompt_version}" if report.prompt_version else ""
    output.print(
        f"{report.news}; student {report.student}{reads}, weights {report.student_weight:g} : {report.signal_weight:g} "
        f"(student : signals); seed {report.seed}; {machine.processor}, {machine.cores} cores; {report.seconds:.0f} s"
    )


def _cells(row: Row) -> list[str]:
    ten, fifty = row.recall_at_10, row.recall_at_50
    difference = row.served_minus_this
    return [
        row.system,
        f"{ten.mean:.3f}",
        _interval(ten),
        f"{fifty.mean:.3f}",
        _interval(fifty),
        f"{row.ndcg_at_10.mean:.3f}",
        f"{row.mrr.mean:.3f}",
        f"{difference.mean:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})" if difference else "",
    ]


def _interval(row: Estimate) -> str:
    return f"{row.low:.3f}-{row.high:.3f}"


def _told(gain: Gain) -> str:
    by = f"{gain.system} ({gain.version})" if gain.version else gain.system
    ten, fifty = (
        f"{row.mean:+.4f} ({row.low:+.4f} to {row.high:+.4f})" for row in (gain.recall_at_10, gain.recall_at_50)
    )
    return (
        f"gap {gain.gap:g}, {by} over the rules alone: Recall@10 {ten}, Recall@50 {fifty}; "
        f"{gain.dropped:.1%} of pages and searches dropped"
    )


def _tuning_table(tuned: Sequence[Tuned]) -> Table:
    gaps = sorted({row.gap for row in tuned})
    weights = sorted({row.student_weight for row in tuned})
    cells = {(row.gap, row.student_weight): f"{row.recall_at_10.mean:.3f}" for row in tuned}
    table = Table("student's weight", *(f"gap {gap:g}" for gap in gaps), title="Recall@10 of tuning readers, by weight")
    for weight in weights:
        table.add_row(f"{weight:g}", *(cells.get((gap, weight), "") for gap in gaps))
    return table


def read_feed(path: Path | None) -> list[Article] | None:
    """The articles of a JSON Lines feed; broken lines are counted and left out."""
    if path is None:
        return None
    from stream.feeds.jsonl import BadLine, read_articles

    lines = [line.row for line in read_articles(path)]
    articles = [row for row in lines if not isinstance(row, BadLine)]
    if len(articles) < len(lines):
        console.print(f"{path.name}: {len(lines) - len(articles)} broken lines left out")
    return articles


def run(
    readers: Annotated[int, typer.Option(min=1, help="Reported readers.")] = 300,
    tuning_readers: Annotated[int, typer.Option(min=0, help="Readers to compare weights on; 0: do not.")] = 0,
    gap: Annotated[list[float] | None, typer.Option(min=0, max=1, help="Widths; repeat for several.")] = None,
    events: Annotated[float, typer.Option(help="Mean events of a reader.")] = 40.0,
    days: Annotated[float, typer.Option(help="Simulated days; the last quarter is to be found.")] = 14.0,
    articles: Annotated[Path | None, typer.Option(help="A feed; the built-in news world without it.")] = None,
    student: Annotated[bool, typer.Option(help="--no-student leaves out the rows that need its lists.")] = True,
    cleaner: Annotated[bool, typer.Option(help="Also clean by the served cleaner, and tell what it earns.")] = False,
    noise: Annotated[str, typer.Option(help="listed | wide: of other forms for reported readers than labels have.")] = (
        "listed"
    ),
    noise_share: Annotated[float, typer.Option(min=0, max=1, help="Of the pages and searches.")] = 0.15,
    triton: Annotated[str, typer.Option(help="gRPC address; without it one is started.")] = "",
    seed: Annotated[int, typer.Option(help="Of the simulation and the intervals.")] = 7,
    json_path: Annotated[Path | None, typer.Option("--json", help="Also write the report there.")] = None,
) -> None:
    """Recall of later clicks for what is served, its parts and its rivals.

    Example: keenstream bench quality --readers 300 --json quality.json
    """
    simulation = SimulationSettings(
        seed=seed,
        readers=READERS_SIMULATED * max(readers, tuning_readers),
        events_per_reader=events,
        days=days,
        noise_share=noise_share,
    )
    simulation = msgspec.structs.replace(simulation, noise=noise)
    plan = Plan(
        simulation=checked(simulation),
        gaps=tuple(gap or GAPS),
        readers=readers,
        tuning_readers=tuning_readers,
        with_student=student,
        with_cleaner=cleaner,
        articles=read_feed(articles),
        news=f"articles of {articles.name}" if articles else "built-in news world (generated)",
        config=load_config(),
    )
    with models(triton, student, cleaner) as address:
        report = asyncio.run(measure(plan, address))
    show(report)
    if json_path:
        json_path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))


if __name__ == "__main__":
    typer.run(run)
