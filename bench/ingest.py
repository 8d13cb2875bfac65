"""What batches are worth: articles to their topic and into the index, beside one article at a time.

    keenstream bench ingest --articles 20000

The topic: what `keenstream ingest FILE` runs, on a JSON Lines file and real Kafka, beside a loop that reads the same
file by the same rules and sends each article when the broker has the one before. The index: what the article worker
does with a batch of 256 records (decode, embed by Triton, one per story, store in Milvus), beside the same with one
record each. Rounds alternate, so that a slower spell of the machine meets both; figures are medians.
"""

import asyncio
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench._machine import Machine, this_machine
from bench._reader_world import open_store
from bench.quality import models
from keenstream.ingest_destination import destination
from keenstream.stack.kafka import kafka_server
from keenstream.stack.milvus import milvus_server
from offline.simulate import ARTICLES_FILE, SimulationSettings, write_simulation
from schemas.article import Article
from schemas.clients.triton import TritonEmbedder
from schemas.codec import ARTICLES
from schemas.config import Config, Kafka, Milvus, Triton
from schemas.errors import KeenstreamError
from schemas.names import Topic
from stream.articles.indexer import ArticleIndexer
from stream.clock import now_ms
from stream.feeds.files import FileOptions, open_reader
from stream.feeds.ingestion import Destination, IngestOptions, ingest_file
from stream.feeds.rows import START, Taken
from stream.producer import MemoryProducer, Outgoing
from stream.topics import all_topics
from stream.transport import create_topics
from stream.transport.record import Record

DAY_MS = 86_400_000

console = Console(highlight=False, stderr=True)
output = Console(highlight=False)


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """Articles per second, medians over the rounds; `ratio` is the median of the rounds' ratios."""

    what: str
    articles: int
    articles_alone: int  # sent one at a time, which is slower: fewer tell it as well
    rounds: int
    batched_per_second: float
    alone_per_second: float
    ratio: float


class IngestReport(msgspec.Struct, frozen=True, kw_only=True):
    machine: Machine
    paces: tuple[Pace, ...]


class Run(msgspec.Struct, frozen=True):
    """A round: seconds for each article."""

    batched: float
    alone: float


def main(
    articles: Annotated[int, typer.Option(min=100, help="Sent to the topic.")] = 20_000,
    indexed: Annotated[
        int, typer.Option(min=0, help="Taken into the index, which needs Triton and Milvus; 0 leaves it out.")
    ] = 2_048,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 3,
    triton: Annotated[str, typer.Option(help="Address of a running one; default: one is started.")] = "",
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file too.")] = None,
) -> None:
    """Measure batches against single articles. Example: `keenstream bench ingest --articles 20000`"""
    with TemporaryDirectory(prefix="keenstream-bench-ingest-") as scratch:
        folder = Path(scratch)
        given = write_news(folder, max(articles, indexed * rounds))
        paces = [measure_topic(folder, given[:articles], rounds)]
        if indexed:
            paces.append(_measure_real_index(folder, given, indexed, rounds, triton))
    table = Table("articles/s", "batches", "one at a time", "ratio", title="Ingestion")
    for pace in paces:
        rates = (f"{pace.batched_per_second:,.0f}", f"{pace.alone_per_second:,.0f}")
        table.add_row(f"{pace.what}, {pace.articles:,}", *rates, f"{pace.ratio:.1f}")
    output.print(table)
    if json:
        report = IngestReport(machine=this_machine(), paces=tuple(paces))
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))


def write_news(folder: Path, count: int) -> list[Article]:
    """Generated articles of the last days, also as the lines of `folder`/articles.jsonl."""
    console.print(f"generating {count:,} articles")
    settings = SimulationSettings(readers=1, articles=count, days=1.0, start_ms=now_ms() - 2 * DAY_MS)
    write_simulation(folder, settings)
    return [ARTICLES.decode(line) for line in (folder / ARTICLES_FILE).read_bytes().splitlines()]


def measure_topic(folder: Path, articles: Sequence[Article], rounds: int) -> Pace:
    """A file onto the topic of a real broker."""
    with kafka_server(folder / "kafka") as kafka:
        config = Config(kafka=Kafka(bootstrap=kafka.bootstrap))
        create_topics(config.kafka, all_topics(config))
        console.print("to the topic")
        return asyncio.run(_measure_topic(config, folder, articles, rounds))


async def _measure_topic(config: Config, folder: Path, articles: Sequence[Article], rounds: int) -> Pace:
    whole, few = _file(folder / "all.jsonl", articles), articles[: max(1, len(articles) // 10)]
    part = _file(folder / "few.jsonl", few)
    runs: list[Run] = []
    async with destination(config) as topic:
        for number in track(range(rounds), console=console, description="rounds"):
            options = IngestOptions(folder=folder / f"state-{number}")  # of its own, or nothing would be new
            started = time.perf_counter()
            result = await ingest_file(whole, "jsonl", options, topic)
            batched = time.perf_counter() - started
            _check(result.tally.sent, len({article.article_id for article in articles}))
            started = time.perf_counter()
            _check(await send_one_by_one(part, topic), len(few))
            runs.append(Run(batched / len(articles), (time.perf_counter() - started) / len(few)))
    return _pace("file to topic", len(articles), len(few), runs)


async def send_one_by_one(path: Path, topic: Destination) -> int:
    """The articles of `path`, each when the broker has the one before; how many."""
    sent = 0
    for step in open_reader(path, FileOptions(format="jsonl"), now_ms())(START):
        for outcome in step.outcomes:
            if isinstance(outcome, Taken) and isinstance(article := outcome.record, Article):
                value = topic.codecs.articles.encode(article)
                await topic.producer.send([Outgoing(Topic.ARTICLES, article.article_id.encode(), value)])
                sent += 1
    return sent


def _measure_real_index(folder: Path, given: Sequence[Article], indexed: int, rounds: int, triton: str) -> Pace:
    with models(triton, False, False) as address:
        console.print("starting Milvus")
        with milvus_server(folder / "milvus") as milvus:
            config = Config(milvus=Milvus(uri=milvus.uri), triton=Triton(grpc_address=address))
            return asyncio.run(_measure_index(config, given, indexed, rounds))


async def _measure_index(config: Config, given: Sequence[Article], indexed: int, rounds: int) -> Pace:
    """Each round takes articles that are new to the store, so that no run meets stories of another one's."""
    few = max(1, indexed // 16)
    runs: list[Run] = []
    async with AsyncExitStack() as opened:
        store = await opened.enter_async_context(open_store(config))
        await store.prepare()
        embedder = TritonEmbedder(config.triton, deadline_seconds=config.triton.embedder_deadline_seconds)
        opened.push_async_callback(embedder.close)
        indexer = ArticleIndexer(config.articles, embedder, store, MemoryProducer(), now_ms)
        await indexer.process(records(given[:1]))  # connections and the model's first answer are no part of it
        for number in track(range(rounds), console=console, description="rounds"):
            rows = records(given[number * indexed : (number + 1) * indexed])
            batched = await index_in(config.articles.batch_records, indexer, rows[few:])
            runs.append(Run(batched / (len(rows) - few), await index_in(1, indexer, rows[:few]) / few))
    return _pace("record to index", indexed - few, few, runs)


async def index_in(batch: int, indexer: ArticleIndexer, rows: Sequence[Record]) -> float:
    """Seconds to index `rows` in batches of so many."""
    started = time.perf_counter()
    for first in range(0, len(rows), batch):
        await indexer.process(rows[first : first + batch])
    return time.perf_counter() - started


def records(articles: Sequence[Article]) -> list[Record]:
    """As the topic gives them, live for a day."""
    until = now_ms() + DAY_MS
    live = [msgspec.structs.replace(article, expires_at=until) for article in articles]
    return [
        Record(Topic.ARTICLES, 0, number, article.published_at, article.article_id.encode(), ARTICLES.encode(article))
        for number, article in enumerate(live)
    ]


def _pace(what: str, articles: int, alone: int, runs: Sequence[Run]) -> Pace:
    return Pace(
        what=what,
        articles=articles,
        articles_alone=alone,
        rounds=len(runs),
        batched_per_second=1 / statistics.median(run.batched for run in runs),
        alone_per_second=1 / statistics.median(run.alone for run in runs),
        ratio=statistics.median(run.alone / run.batched for run in runs),
    )


def _file(path: Path, articles: Sequence[Article]) -> Path:
    path.write_bytes(b"".join(ARTICLES.encode(article) + b"\n" for article in articles))
    return path


def _check(sent: int, wanted: int) -> None:
    if sent != wanted:
        raise KeenstreamError(f"{sent:,} of {wanted:,} articles were sent")


if __name__ == "__main__":
    typer.run(main)
