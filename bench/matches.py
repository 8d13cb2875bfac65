"""How soon the readers of a new article are known, from its append to the match on the topic.

    keenstream bench matches --articles news.jsonl --queries 100000 --rate 20 --seconds 60

Real Kafka, Milvus, Triton's embedder, the article worker and the match worker as processes; nothing else runs. Stored
queries are headlines of the feed (embedded, then moved a little, so that no two are alike); the articles that are sent
at a fixed rate are other ones. Times are the broker's own, of the append of the article and of the append of its match.
Afterwards the same search is compared with exact numpy over all stored vectors.
"""

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench._machine import Machine, this_machine
from bench._reader_world import open_store
from bench._worker import Worker, worker
from bench.quality import models, read_feed
from keenstream.stack.kafka import kafka_server
from keenstream.stack.milvus import milvus_server
from offline.simulate import SimulationSettings, build_world
from schemas.article import Article, embedded_text
from schemas.clients.milvus import MilvusStore
from schemas.clients.triton import TritonEmbedder
from schemas.clients.vector_store import Vectors, signal_write, student_write
from schemas.codec import ARTICLES, MATCHES
from schemas.config import Config, Kafka, Matches, Milvus, Triton
from schemas.errors import KeenstreamError, UsageError
from schemas.names import EMBEDDING_DIMENSIONS, Topic
from schemas.queries import QueryList
from stream.matches.rules import rows_wanted
from stream.producer import KafkaProducer, Outgoing
from stream.topic_reader import read_topic
from stream.topics import all_topics
from stream.transport import create_topics

QUERIES, SIGNALS = 5, 5  # of each reader
WRITE_READERS = 100
DAY_MS = 86_400_000
SPREAD = 0.4  # how far a stored query lies from its headline: a cosine of 0.93
PER_READER_HOUR = 100  # so that the bound, which is another matter, does not silence the last articles
WARM_ARTICLES = 40
SETTLED_SECONDS = 3.0  # without a new match: all have come
WAIT_SECONDS = 120.0

console = Console(highlight=False, stderr=True)
output = Console(highlight=False, width=120)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    feed: Sequence[Article] | None
    news: str
    queries: int
    headlines: int
    rate: float
    seconds: float
    seed: int
    triton: str

    @property
    def articles(self) -> int:
        return int(self.rate * self.seconds)


class Delay(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from the article's append."""

    what: str
    count: int
    p50: float
    p95: float
    p99: float
    most: float


class Recall(msgspec.Struct, frozen=True, kw_only=True):
    """The store's answers beside exact cosine over all stored vectors."""

    articles: int
    rows: int  # that exact search finds
    recall: float


class MatchReport(msgspec.Struct, frozen=True, kw_only=True):
    machine: Machine
    news: str
    queries: int
    readers: int
    rate: float
    seconds: float
    min_similarity: float
    articles: int
    announced: int  # articles that had a reader
    matches: int
    delays: tuple[Delay, ...]
    recall: Recall
    load_before: float  # the machine's, last minute: what else was running


class Stored(msgspec.Struct, frozen=True):
    """What lies in the store: a reader's rows one after another."""

    vectors: Vectors
    readers: int


def measure(plan: Plan) -> MatchReport:
    with TemporaryDirectory(prefix="keenstream-bench-matches-") as scratch, models(plan.triton, False, False) as triton:
        folder = Path(scratch)
        console.print("starting Kafka and Milvus")
        with kafka_server(folder / "kafka") as kafka, milvus_server(folder / "milvus") as milvus:
            config = Config(
                kafka=Kafka(bootstrap=kafka.bootstrap),
                milvus=Milvus(uri=milvus.uri),
                triton=Triton(grpc_address=triton),
                matches=Matches(per_reader_hour=PER_READER_HOUR),
            )
            _create_topics(config)
            return asyncio.run(_measure(plan, config, folder))


def _create_topics(config: Config) -> None:
    """Both ends by the broker's clock."""
    measured = (Topic.ARTICLES, Topic.FRESH_MATCHES)
    by_broker = {"message.timestamp.type": "LogAppendTime"}
    create_topics(
        config.kafka,
        [
            msgspec.structs.replace(spec, config={**spec.config, **by_broker}) if spec.name in measured else spec
            for spec in all_topics(config)
        ],
    )


async def _measure(plan: Plan, config: Config, folder: Path) -> MatchReport:
    headlines, articles = _news(plan)
    async with open_store(config) as store:
        await store.prepare()
        stored = await _store_queries(plan, config, store, headlines)
        load_before = os.getloadavg()[0]
        with _workers(config, folder) as (indexer, matcher):
            await _send_and_wait(plan, config, articles, indexer, matcher)
        recall = await _recall(config, store, stored, articles[WARM_ARTICLES : WARM_ARTICLES + 100])
    waits = _waits(config, {article.article_id for article in articles[WARM_ARTICLES:]})
    return MatchReport(
        machine=this_machine(),
        news=plan.news,
        queries=len(stored.vectors),
        readers=stored.readers,
        rate=plan.rate,
        seconds=plan.seconds,
        min_similarity=config.matches.min_similarity,
        articles=plan.articles,
        announced=len(waits),
        matches=sum(map(len, waits.values())),
        delays=(
            _delay("every match", [seconds for of_article in waits.values() for seconds in of_article]),
            _delay("an article's first match", [min(of_article) for of_article in waits.values()]),
            _delay("an article's last match", [max(of_article) for of_article in waits.values()]),
        ),
        recall=recall,
        load_before=round(load_before, 1),
    )


def _news(plan: Plan) -> tuple[list[str], list[Article]]:
    """Headlines for queries, and the articles to send: other ones, published now."""
    given = plan.feed
    if given is None:
        world = build_world(
            SimulationSettings(seed=plan.seed, readers=1, articles=plan.headlines + 4 * plan.articles), None
        )
        given = [story.article for story in world.stories]
    order = np.random.default_rng(plan.seed).permutation(len(given))
    shuffled = list({given[at].title.casefold(): given[at] for at in order}.values())
    sent = plan.articles + WARM_ARTICLES
    if len(shuffled) < sent + 100:
        raise UsageError(f"{len(shuffled)} articles with different titles: {sent + 100} are needed, or a lower rate")
    headlines = [article.title for article in shuffled[sent : sent + plan.headlines]]
    articles = [
        msgspec.structs.replace(article, article_id=f"sent-{number}", published_at=_now_ms(), expires_at=None)
        for number, article in enumerate(shuffled[:sent])
    ]
    return headlines, articles


async def _store_queries(plan: Plan, config: Config, store: MilvusStore, headlines: Sequence[str]) -> Stored:
    console.print(f"embedding {len(headlines):,} headlines and storing {plan.queries:,} queries around them")
    random = np.random.default_rng(plan.seed)
    around = await _embed(config, headlines)
    readers = plan.queries // (QUERIES + SIGNALS)
    chosen = random.integers(len(around), size=readers * (QUERIES + SIGNALS))
    noise = _unit(random.normal(size=(len(chosen), EMBEDDING_DIMENSIONS)))
    vectors = _unit(around[chosen] + SPREAD * noise)
    texts = [headlines[at][:80] for at in chosen]
    for first in track(range(0, readers, WRITE_READERS), console=console, description="storing"):
        await _write(store, range(first, min(first + WRITE_READERS, readers)), texts, vectors)
    return Stored(vectors, readers)


async def _write(store: MilvusStore, readers: range, texts: Sequence[str], vectors: Vectors) -> None:
    writes = []
    for number in readers:
        first = number * (QUERIES + SIGNALS)
        middle, last = first + QUERIES, first + QUERIES + SIGNALS
        written = QueryList(
            user_id=f"reader-{number}",
            queries=tuple(texts[first:middle]),
            signals=tuple(texts[middle:last]),
            source="student",
            profile_fingerprint="",
            model="bench",
            model_version="1",
            prompt_version="1",
            generated_at=_now_ms(),
            expires_at=_now_ms() + DAY_MS,
        )
        writes += [student_write(written, vectors[first:middle]), signal_write(written, vectors[middle:last])]
    await store.write_user_queries(writes)


async def _embed(config: Config, texts: Sequence[str]) -> Vectors:
    embedder = TritonEmbedder(config.triton, deadline_seconds=300.0)
    try:
        parts = [texts[first : first + 256] for first in range(0, len(texts), 256)]
        found = [await embedder.embed(part) for part in track(parts, console=console, description="embedding")]
        return np.concatenate(found)
    finally:
        await embedder.close()


@contextmanager
def _workers(config: Config, folder: Path) -> Iterator[tuple[Worker, Worker]]:
    with worker("articles", config, folder) as indexer, worker("matches", config, folder) as matcher:
        yield indexer, matcher


async def _send_and_wait(
    plan: Plan, config: Config, articles: Sequence[Article], indexer: Worker, matcher: Worker
) -> None:
    async with KafkaProducer(config.kafka) as producer:
        console.print("waiting until the workers are ready")
        await producer.send([_outgoing(article) for article in articles[:WARM_ARTICLES]])
        await _until(lambda: _taken(indexer) >= WARM_ARTICLES and _decided(matcher) > 0, indexer, matcher)
        await _until_quiet(matcher)
        console.print(f"sending {plan.articles:,} articles, {plan.rate:g}/s")
        started, sending = time.monotonic(), []
        for number, article in enumerate(articles[WARM_ARTICLES:]):
            await asyncio.sleep(max(0.0, started + number / plan.rate - time.monotonic()))
            sending.append(asyncio.create_task(producer.send([_outgoing(article)])))
        await asyncio.gather(*sending)
    await _until(lambda: _taken(indexer) >= len(articles), indexer, matcher)
    await _until_quiet(matcher)


def _outgoing(article: Article) -> Outgoing:
    return Outgoing(Topic.ARTICLES, article.article_id.encode(), ARTICLES.encode(article))


def _taken(indexer: Worker) -> float:
    return indexer.metric("keenstream_articles_indexed_total") + indexer.metric("keenstream_articles_skipped_total")


def _decided(matcher: Worker) -> float:
    return matcher.metric("keenstream_matches_total")


async def _until(condition: Any, *workers: Worker) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline or any(row.process.poll() is not None for row in workers):
            logs = "\n".join(row.log.read_text()[-2_000:] for row in workers)
            raise KeenstreamError(f"the workers did not get there within {WAIT_SECONDS:.0f} s; their logs:\n{logs}")
        await asyncio.sleep(0.5)


async def _until_quiet(matcher: Worker) -> None:
    before, since = -1.0, time.monotonic()
    while time.monotonic() - since < SETTLED_SECONDS:
        await asyncio.sleep(0.5)
        if (now := await asyncio.to_thread(_decided, matcher)) != before:
            before, since = now, time.monotonic()


def _waits(config: Config, wanted: set[str]) -> dict[str, list[float]]:
    """Seconds from the article's append to each of its matches', by article."""
    appended: dict[str, int] = {}
    for record in read_topic(config.kafka, Topic.ARTICLES):
        appended.setdefault(record.key.decode(), record.timestamp)
    waits: dict[str, list[float]] = {}
    for record in read_topic(config.kafka, Topic.FRESH_MATCHES):
        article_id = MATCHES.decode(record.value).article_id
        if article_id in wanted:
            waits.setdefault(article_id, []).append((record.timestamp - appended[article_id]) / 1000)
    if not waits:
        raise KeenstreamError("no article found a reader: is matches.min_similarity too high for this feed?")
    return waits


async def _recall(config: Config, store: MilvusStore, stored: Stored, articles: Sequence[Article]) -> Recall:
    vectors = await _embed(config, [embedded_text(article) for article in articles])
    limit, least = rows_wanted(config.matches.max_readers), config.matches.min_similarity
    answers = [
        (await store.search_user_queries(row[np.newaxis], limit=limit, now_ms=_now_ms(), min_similarity=least))[0]
        for row in vectors
    ]
    found = wanted = 0
    for row, hits in zip(vectors, answers, strict=True):
        exact = np.sort(stored.vectors @ row)[::-1][:limit]
        exact = exact[exact > least]
        wanted += len(exact)
        # by similarity, not by id: rows may tie
        found += sum(hit.similarity >= exact[-1] - 1e-5 for hit in hits) if len(exact) else 0
    return Recall(articles=len(articles), rows=wanted, recall=round(int(found) / max(1, wanted), 5))


def _delay(what: str, seconds: Sequence[float]) -> Delay:
    p50, p95, p99 = (round(float(value), 3) for value in np.percentile(seconds, [50, 95, 99]))
    return Delay(what=what, count=len(seconds), p50=p50, p95=p95, p99=p99, most=round(max(seconds), 3))


def _unit(vectors: Any) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def show(report: MatchReport) -> None:
    table = Table("from the article's append to", "count", "p50 s", "p95 s", "p99 s", "max s")
    for row in report.delays:
        table.add_row(row.what, f"{row.count:,}", *(f"{v:.2f}" for v in (row.p50, row.p95, row.p99, row.most)))
    output.print(table)
    output.print(
        f"{report.announced:,} of {report.articles:,} articles ({report.rate:g}/s, {report.news}) had a reader; "
        f"{report.queries:,} stored queries of {report.readers:,} readers, similarity above {report.min_similarity:g}; "
        f"recall beside exact search {report.recall.recall:.4f} of {report.recall.rows:,} rows; "
        f"load before {report.load_before:.1f}; {report.machine.processor}, {report.machine.cores} cores"
    )


def run(
    articles: Annotated[Path | None, typer.Option(help="A feed (JSON Lines); generated headlines without it.")] = None,
    queries: Annotated[int, typer.Option(min=100, help="Stored queries, ten of each reader.")] = 100_000,
    headlines: Annotated[int, typer.Option(min=100, help="Different headlines behind the queries.")] = 4_000,
    rate: Annotated[float, typer.Option(min=0.1, help="Articles per second.")] = 20.0,
    seconds: Annotated[float, typer.Option(min=1)] = 60.0,
    triton: Annotated[str, typer.Option(help="gRPC address of a running Triton; without it one is started.")] = "",
    seed: Annotated[int, typer.Option()] = 7,
    json_path: Annotated[Path | None, typer.Option("--json", help="Also write the report there.")] = None,
) -> None:
    """From a new article to the readers who should see it, under a fixed rate of articles.

    Example: keenstream bench matches --articles news.jsonl --json matches.json
    """
    plan = Plan(
        feed=read_feed(articles),
        news=f"articles of {articles.name}" if articles else "generated articles",
        queries=queries,
        headlines=headlines,
        rate=rate,
        seconds=seconds,
        seed=seed,
        triton=triton,
    )
    report = measure(plan)
    show(report)
    if json_path:
        json_path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))


if __name__ == "__main__":
    typer.run(run)
