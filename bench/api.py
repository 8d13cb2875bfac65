"""How fast candidates are served while events flow.

    keenstream bench api --seconds 60

Real Kafka and Milvus, the API and the profile worker as processes. An open-loop generator in a process of its own asks
for candidates at a fixed rate and posts events at another; readers' lists are rewritten all the while, so that cached
vectors grow old. It begins when Milvus has built its index and the API has read ahead what its cache holds. Vectors are
synthetic (topic centres with noise) unless `--triton` names a server that embeds the articles.
"""

import asyncio
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import httpx
import msgspec
import numpy as np
import psutil
import typer
from rich.console import Console
from rich.table import Table

from bench._load import Load, reader_id
from bench._machine import Machine, this_machine
from bench._reader_world import Plan, open_store, prepare, write_lists
from bench._worker import Worker, worker
from keenstream.stack.kafka import kafka_server
from keenstream.stack.milvus import milvus_server
from keenstream.stack.ports import free_port
from schemas.clients.milvus import MilvusStore
from schemas.clients.vector_store import Vectors
from schemas.config import Api, Config, Kafka, Milvus
from schemas.errors import UsageError
from stream.producer import KafkaProducer
from stream.topics import all_topics
from stream.transport import create_topics

READY_SECONDS = 60.0
SETTLE_SECONDS = 90.0

console = Console(highlight=False, stderr=True)
output = Console(highlight=False)


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Of one kind of request, in ms from the intended time of sending."""

    requests: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


class ApiReport(msgspec.Struct, frozen=True, kw_only=True):
    machine: Machine
    articles: int
    news: str
    readers: int
    rate: float
    events_rate: float
    refresh_rate: float
    seconds: float
    candidates: Latency
    events: Latency
    errors: int
    error_kinds: list[str]
    stale: int
    cache_hit_share: float
    generator_p99_late_ms: float
    load_before: float  # the machine's, last minute: what else was running


def measure(plan: Plan) -> ApiReport:
    with TemporaryDirectory(prefix="keenstream-bench-api-") as scratch:
        folder = Path(scratch)
        console.print("starting Kafka and Milvus")
        with kafka_server(folder / "kafka") as kafka, milvus_server(folder / "milvus") as milvus:
            config = Config(
                kafka=Kafka(bootstrap=kafka.bootstrap), milvus=Milvus(uri=milvus.uri), api=Api(port=free_port())
            )
            create_topics(kafka.bootstrap, all_topics(config))
            console.print(
                f"storing at most {plan.article_count:,} articles and the queries of {plan.readers:,} readers"
            )
            stored, around = asyncio.run(prepare(config, plan))
            plan = msgspec.structs.replace(plan, article_count=stored)
            with worker("profiles", config, folder), worker("api", config, folder) as api:
                return asyncio.run(_measure(config, plan, around, api, milvus.pid))


async def _measure(config: Config, plan: Plan, around: Vectors, api: Worker, milvus_pid: int) -> ApiReport:
    url = f"http://127.0.0.1:{config.api.port}"
    await _wait_ready(url)
    await asyncio.to_thread(_wait_settled, milvus_pid)
    hits, misses = _cache(api)
    load_before = os.getloadavg()[0]
    console.print(f"{plan.rate:g} requests/s for {plan.seconds:g} s")
    async with open_store(config) as store, KafkaProducer(config.kafka) as producer:
        refreshing = asyncio.create_task(_refresh(store, producer, plan, around))
        load = await asyncio.to_thread(_generate, url, plan)
        refreshing.cancel()
        with suppress(asyncio.CancelledError):
            await refreshing
    new_hits, new_misses = _cache(api)
    return _report(plan, load, (new_hits - hits) / max(1.0, new_hits - hits + new_misses - misses), load_before)


def _wait_settled(pid: int) -> None:
    """Until Milvus has nothing left to do: it builds its index, and the API reads ahead."""
    console.print("waiting until Milvus has nothing left to do")
    server = psutil.Process(pid)
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        family = [server, *server.children(recursive=True)]
        before = sum(sum(process.cpu_times()[:2]) for process in family)
        time.sleep(3.0)
        if sum(sum(process.cpu_times()[:2]) for process in family) - before < 0.3:
            return


async def _wait_ready(url: str) -> None:
    """Until candidates are served; Triton is not part of this, so /readyz says `degraded`."""
    deadline = time.monotonic() + READY_SECONDS
    async with httpx.AsyncClient() as client:
        while time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                if (await client.get(f"{url}/readyz", timeout=10.0)).status_code == 200:
                    return
            await asyncio.sleep(0.2)
    raise UsageError(f"the API was not ready in {READY_SECONDS:g} s: run with KEENSTREAM_LOG_LEVEL=INFO to see why")


async def _refresh(store: MilvusStore, producer: KafkaProducer, plan: Plan, around: Vectors) -> None:
    """Lists rewritten, as the interest worker does."""
    random = np.random.default_rng(plan.seed + 1)
    while plan.refresh_rate:
        await write_lists(store, producer, [reader_id(int(random.integers(plan.readers)))], around, random)
        await asyncio.sleep(1 / plan.refresh_rate)


def _generate(url: str, plan: Plan) -> Load:
    options = {"--rate": plan.rate, "--events-rate": plan.events_rate, "--seconds": plan.seconds, "--seed": plan.seed}
    argv = [sys.executable, "-m", "bench._load", url, str(plan.readers)]
    argv += [text for name, value in options.items() for text in (name, str(value))]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=True, timeout=plan.seconds + 60)
    return msgspec.json.decode(done.stdout, type=Load)


def _cache(api: Worker) -> tuple[float, float]:
    name = "keenstream_api_query_cache_total"
    return api.metric(name, outcome="hit"), api.metric(name, outcome="miss")


def _report(plan: Plan, load: Load, hit_share: float, load_before: float) -> ApiReport:
    return ApiReport(
        machine=this_machine(),
        articles=plan.article_count,
        news=plan.articles.name if plan.articles else "generated",
        readers=plan.readers,
        rate=plan.rate,
        events_rate=plan.events_rate,
        refresh_rate=plan.refresh_rate,
        seconds=plan.seconds,
        candidates=_latency(load.candidates),
        events=_latency(load.events),
        errors=len(load.errors),
        error_kinds=sorted(set(load.errors)),
        stale=load.stale,
        cache_hit_share=round(hit_share, 3),
        generator_p99_late_ms=_quantile(load.late_sends, 0.99),
        load_before=round(load_before, 1),
    )


def _latency(seconds: list[float]) -> Latency:
    p50, p95, p99, longest = (_quantile(seconds, share) for share in (0.5, 0.95, 0.99, 1.0))
    return Latency(requests=len(seconds), p50_ms=p50, p95_ms=p95, p99_ms=p99, max_ms=longest)


def _quantile(seconds: list[float], share: float) -> float:
    return round(float(np.quantile(seconds, share)) * 1000, 2) if seconds else 0.0


def show(report: ApiReport) -> None:
    table = Table("", "requests", "p50 ms", "p95 ms", "p99 ms", "max ms")
    for name, row in (("candidates", report.candidates), ("events, 20 a post", report.events)):
        cells = [f"{value:.1f}" for value in (row.p50_ms, row.p95_ms, row.p99_ms, row.max_ms)]
        table.add_row(name, f"{row.requests:,}", *cells)
    output.print(table)
    output.print(
        f"{report.errors} errors, {report.stale} stale; {report.articles:,} articles ({report.news}), "
        f"{report.readers:,} readers, {report.rate:g} requests/s for {report.seconds:g} s, {report.events_rate:g} "
        f"events/s, {report.refresh_rate:g} lists/s; vectors cached for {report.cache_hit_share:.0%} of requests; "
        f"load before {report.load_before:.1f}; {report.machine.processor}, {report.machine.cores} cores; "
        f"the generator itself was late by {report.generator_p99_late_ms:.1f} ms at p99"
    )


def run(
    articles: Annotated[Path | None, typer.Option(help="A feed (JSON Lines); generated headlines without it.")] = None,
    article_count: Annotated[int, typer.Option(min=100, help="At most so many articles.")] = 10_000,
    readers: Annotated[int, typer.Option(min=1)] = 5_000,
    rate: Annotated[float, typer.Option(min=1, help="Requests for candidates per second.")] = 100.0,
    events_rate: Annotated[float, typer.Option(min=0, help="Events posted per second.")] = 200.0,
    refresh_rate: Annotated[float, typer.Option(min=0, help="Readers' lists rewritten per second.")] = 5.0,
    seconds: Annotated[float, typer.Option(min=1)] = 60.0,
    triton: Annotated[str, typer.Option(help="gRPC address of a Triton that embeds the articles.")] = "",
    seed: Annotated[int, typer.Option()] = 7,
    json_path: Annotated[Path | None, typer.Option("--json", help="Also write the report there.")] = None,
) -> None:
    """Latency of candidates under a fixed rate of requests, while events flow.

    Example: keenstream bench api --seconds 60 --json api.json
    """
    plan = Plan(
        articles=articles,
        article_count=article_count,
        readers=readers,
        rate=rate,
        events_rate=events_rate,
        refresh_rate=refresh_rate,
        seconds=seconds,
        triton=triton,
        seed=seed,
    )
    report = measure(plan)
    show(report)
    if json_path:
        json_path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))


if __name__ == "__main__":
    typer.run(run)
