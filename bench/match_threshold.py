"""From which similarity on a new article should be announced to a reader: precision and recall by threshold.

    keenstream bench match_threshold --readers 300

Simulated readers (offline/simulate), split at one moment as in `keenstream bench quality`: their stored queries come
from what was known by then, the articles are those that appeared later. An article is wanted by a reader whose true
interests, which the simulator knows, hold its topic when it appears. Precision: of the pairs of article and reader
above the threshold, the share that is wanted; recall: of the wanted pairs, the share above it; clicks: of the articles
that the reader then clicked, the share above it. Half of the readers choose (`tuning`), the others are reported.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench._machine import Machine, this_machine
from bench.quality import models, read_feed
from offline.evaluate.held_out import HeldOutReader
from offline.evaluate.protocol import Task, build_task, write_lists
from offline.evaluate.retrieval import VectorCache
from offline.simulate import SimulationSettings, build_world, checked
from offline.simulate.truth import ReaderTruth
from schemas.article import Article, embedded_text
from schemas.clients.triton import TritonEmbedder, TritonStudent
from schemas.config import load_config
from schemas.errors import UsageError
from schemas.queries import signals_as_queries

THRESHOLDS = tuple(round(0.2 + 0.05 * step, 2) for step in range(13))
READERS_SIMULATED = 4  # for each reported one: half of them tune, some have no later click, the rest are the crowd
DEADLINE_SECONDS = 900.0
WANTED_PRECISION = 0.5  # of what a reader is told without asking, at least half should be wanted

Matrix = NDArray[np.float32]  # [readers, articles]
Mask = NDArray[np.bool_]

console = Console(highlight=False, stderr=True)
output = Console(highlight=False, width=120)


class ThresholdRow(msgspec.Struct, frozen=True, kw_only=True):
    """Reported readers above one similarity."""

    threshold: float
    precision: float
    recall: float
    clicks: float
    per_reader: float  # articles announced to a reader in the time simulated after the moment, without the hourly bound
    readers_told: float  # share of readers who are told anything


class ThresholdReport(msgspec.Struct, frozen=True, kw_only=True):
    machine: Machine
    news: str
    gap: float
    seed: int
    student: str
    readers: int
    articles: int
    days: float
    wanted: float  # precision of announcing everything to everybody
    chosen: float | None  # on tuning readers: the lowest threshold with the wanted precision
    rows: tuple[ThresholdRow, ...]


class Scored(msgspec.Struct, frozen=True):
    """Readers and articles: the best query's similarity, who wants what, who clicked what."""

    similarity: Matrix
    wanted: Mask
    clicked: Mask


async def measure(
    settings: SimulationSettings,
    articles: Sequence[Article] | None,
    news: str,
    readers: int,
    student: bool,
    triton: str,
) -> ThresholdReport:
    config = load_config()
    embedder = TritonEmbedder(triton, deadline_seconds=DEADLINE_SECONDS)
    writer = TritonStudent(triton, deadline_seconds=DEADLINE_SECONDS) if student else None
    try:
        cache = VectorCache(embedder)
        task = await build_task(settings, articles, config, cache)
        groups = {group: task.split.of(group, readers) for group in ("tuning", "reported")}
        if not all(groups.values()):
            raise UsageError("no simulated reader has both a history and a later click: raise --readers or --events")
        everybody = [reader for group in groups.values() for reader in group]
        lists = await write_lists(writer, everybody, max_queries=config.interests.max_queries) if writer else None
        written = lists.of_reader if lists else {}
        topics = _topics(settings, articles)
        scored = {name: await _score(task, group, written, topics, cache) for name, group in groups.items()}
    finally:
        await embedder.close()
        if writer:
            await writer.close()
    tuned = [_row(scored["tuning"], threshold) for threshold in THRESHOLDS]
    reported = scored["reported"]
    return ThresholdReport(
        machine=this_machine(),
        news=news,
        gap=settings.gap,
        seed=settings.seed,
        student=lists.version if lists else "none",
        readers=len(groups["reported"]),
        articles=reported.similarity.shape[1],
        days=settings.days,
        wanted=round(float(reported.wanted.mean()), 4),
        chosen=next((row.threshold for row in tuned if row.precision >= WANTED_PRECISION), None),
        rows=tuple(_row(reported, threshold) for threshold in THRESHOLDS),
    )


def _topics(settings: SimulationSettings, articles: Sequence[Article] | None) -> dict[str, str]:
    """The topic of each article, from the same world again."""
    world = build_world(settings, articles)
    return {story.article.article_id: world.topics[story.topic].topic_id for story in world.stories}


async def _score(
    task: Task,
    readers: Sequence[HeldOutReader],
    written: dict[str, tuple[str, ...]],
    topics: dict[str, str],
    cache: VectorCache,
) -> Scored:
    later = [article for article in task.pool if article.published_at > task.split.at_ms]
    vectors = cache.of([embedded_text(article) for article in later])
    limit = task.config.interests.signal_queries
    queries = [
        (*written.get(reader.user_id, ()), *signals_as_queries(reader.profile, limit=limit)) for reader in readers
    ]
    await cache.add(text for row in queries for text in row)
    best = [(cache.of(row) @ vectors.T).max(axis=0) if row else np.full(len(later), -1.0) for row in queries]
    return Scored(
        np.stack(best).astype(np.float32),
        np.array([_wanted(task.truths[reader.user_id], later, topics) for reader in readers]),
        np.array([[article.article_id in reader.positives for article in later] for reader in readers]),
    )


def _wanted(truth: ReaderTruth, articles: Sequence[Article], topics: dict[str, str]) -> list[bool]:
    """Which articles are about a topic that the reader follows when they appear."""
    return [
        any(
            row.topic == topics[article.article_id] and row.from_ms <= article.published_at < row.until_ms
            for row in truth.interests
        )
        for article in articles
    ]


def _row(scored: Scored, threshold: float) -> ThresholdRow:
    above = scored.similarity > threshold
    told = int(above.sum())
    return ThresholdRow(
        threshold=threshold,
        precision=round(float((above & scored.wanted).sum() / max(1, told)), 3),
        recall=round(float((above & scored.wanted).sum() / max(1, scored.wanted.sum())), 3),
        clicks=round(float((above & scored.clicked).sum() / max(1, scored.clicked.sum())), 3),
        per_reader=round(told / len(above), 1),
        readers_told=round(float(above.any(axis=1).mean()), 3),
    )


def show(report: ThresholdReport) -> None:
    table = Table("similarity above", "precision", "recall", "clicks", "articles a reader", "readers told")
    for row in report.rows:
        cells: list[Any] = [row.precision, row.recall, row.clicks, row.per_reader, row.readers_told]
        style = "bold" if row.threshold == report.chosen else ""
        table.add_row(f"{row.threshold:.2f}", *map(str, cells), style=style)
    output.print(table)
    output.print(
        f"{report.news}, gap {report.gap:g}: {report.readers} reported readers, {report.articles:,} articles that "
        f"appear in {report.days / 4:g} days; {report.wanted:.1%} of all pairs are wanted; student "
        f"{report.student}; tuning readers reach a precision of {WANTED_PRECISION:g} from {report.chosen}; "
        f"seed {report.seed}; {report.machine.processor}, {report.machine.cores} cores"
    )


def run(
    readers: Annotated[int, typer.Option(min=1, help="Reported readers; as many tune.")] = 300,
    gap: Annotated[
        float, typer.Option(min=0, max=1, help="Between what readers browse and the news they click.")
    ] = 0.5,
    events: Annotated[float, typer.Option(help="Mean events of a reader.")] = 40.0,
    days: Annotated[float, typer.Option(help="Simulated days; articles of the last quarter are announced.")] = 14.0,
    articles: Annotated[Path | None, typer.Option(help="A feed; the built-in news world without it.")] = None,
    student: Annotated[bool, typer.Option(help="--no-student leaves its lists out.")] = True,
    triton: Annotated[str, typer.Option(help="gRPC address; without it one is started.")] = "",
    seed: Annotated[int, typer.Option()] = 7,
    json_path: Annotated[Path | None, typer.Option("--json", help="Also write the report there.")] = None,
) -> None:
    """Precision and recall of announcing new articles, by similarity.

    Example: keenstream bench match_threshold --readers 300 --articles news.jsonl --json threshold.json
    """
    settings = checked(
        SimulationSettings(seed=seed, readers=READERS_SIMULATED * readers, events_per_reader=events, days=days, gap=gap)
    )
    news = f"articles of {articles.name}" if articles else "built-in news world (generated)"
    with models(triton, student, False) as address:
        report = asyncio.run(measure(settings, read_feed(articles), news, readers, student, address))
    show(report)
    if json_path:
        json_path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))


if __name__ == "__main__":
    typer.run(run)
