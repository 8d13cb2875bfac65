"""The demo's steps: models, stack, world, replay, readers, summary."""

import os
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
import msgspec
from rich.live import Live
from rich.table import Table

from keenstream.commands.console import console
from keenstream.commands.feed import ingest_file, send_file
from keenstream.commands.show import fetch_reader, print_reader
from keenstream.demo.gauges import read_gauges
from keenstream.demo.progress import Progress, Sent, live_view
from keenstream.demo.readers import choose_readers
from keenstream.settings import api_headers
from keenstream.stack.control import running_stack
from keenstream.stack.folders import demo_folder, state_folder
from keenstream.stack.loop import loop_workers
from keenstream.stack.options import StackOptions
from keenstream.stack.state import RunState
from offline.release.repository import served_models
from offline.simulate import ARTICLES_FILE, EVENTS_FILE, SimulationSettings, write_simulation
from schemas.article import Article
from schemas.config import Config, load_config
from schemas.errors import Unavailable
from schemas.names import App, Topic
from stream.consumer_lag import consumer_lag
from stream.feeds.jsonl import read_articles, read_events

DAY_SECONDS = 86_400
CANDIDATES = 5
REQUESTS_TIMED = 100
READ_BY = {
    App.PROFILES: Topic.USER_EVENTS,
    App.SIGNALS: Topic.QUERY_REQUESTS,
    App.INTERESTS: Topic.QUERY_REQUESTS,
    App.ARTICLES: Topic.ARTICLES,
}
UNTRAINED_WEIGHT = "0.25"  # of the base's lists beside signals; chosen on tuning readers by `keenstream bench quality`
QUIET_SECONDS = 2.0  # with nothing left to do for so long, the replay has ended


class DemoOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to show; the defaults suit a laptop with 2 cores."""

    articles: Path | None = None  # JSON Lines; None = the generated news world
    readers: int = 60
    events_per_reader: float = 14.0
    generated_articles: int = 1_500
    seed: int = 7
    keep: bool = False
    timeout_seconds: float = 900.0


class DemoSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured, in this run, on this machine."""

    generated: bool
    articles: int
    events: int
    readers_shown: tuple[str, ...]
    lists: int
    fallbacks: int
    dead_letters: int
    stack_seconds: float
    replay_seconds: float
    signals_p50_seconds: float
    lists_p50_seconds: float
    candidates_p50_ms: float
    candidates_p95_ms: float
    total_seconds: float
    api: str


def run_demo(options: DemoOptions) -> DemoSummary:
    """Run the main job from nothing and print it; nothing is left running unless `keep`."""
    started = time.monotonic()
    home = demo_folder(state_folder())
    repository = _models(state_folder(), options)
    _start_from_nothing(home)
    config = _demo_config(options)
    console.print("[bold]1/4[/] starting Kafka, Triton, Milvus and the workers")
    stack = StackOptions(repository=str(repository), models=served_models(repository), workers=loop_workers(config))
    watcher = _PartsSeen()
    with running_stack(home, stack, config, watch=watcher, keep=options.keep) as state:
        ready = time.monotonic()
        running = load_config(None, {**state.environment, **os.environ})
        world = home / "world"
        _write_world(world, options)
        progress, replayed = _replay(world, running, state.environment, options)
        summary = _shown(world, running, progress, options, (started, ready, replayed))
    _print_summary(summary, options.keep)
    return summary


class _PartsSeen:
    """Prints each part once, when it is ready."""

    def __init__(self) -> None:
        self._ready: set[str] = set()
        self._started = time.monotonic()

    def __call__(self, state: RunState) -> None:
        for part in state.parts:
            if part.status in ("ready", "done") and part.name not in self._ready:
                self._ready.add(part.name)
                console.print(f"  {part.name:<10} ready after {time.monotonic() - self._started:.1f} s  {part.address}")


def _models(home: Path, options: DemoOptions) -> Path:
    """For given articles with the untrained base, since the shipped student knows the generated news alone."""
    from offline.release.models import build_models, build_untrained

    if options.articles:
        console.print("the shipped student knows the generated news only: for yours the untrained base writes queries")
    build = build_untrained if options.articles else build_models
    with console.status("models") as status:
        return build(home, lambda step: status.update(f"models: {step}")).repository


def _start_from_nothing(home: Path) -> None:
    from keenstream.stack.control import down

    down(home)  # an earlier demo that was kept, or that died
    for name in ("kafka", "milvus", "workers", "archive", "world", "logs"):
        shutil.rmtree(home / name, ignore_errors=True)


def _demo_config(options: DemoOptions) -> Config:
    """Shorter intervals than in production: a demo replays in seconds what took readers days."""
    overrides = {"KEENSTREAM_REFRESH_INTERVAL_SECONDS": "4", "KEENSTREAM_REFRESH_PENDING_SECONDS": "4"}
    if options.articles:
        overrides["KEENSTREAM_API_STUDENT_WEIGHT"] = UNTRAINED_WEIGHT
    return load_config(None, {**overrides, **os.environ})


def _write_world(folder: Path, options: DemoOptions) -> None:
    days = 7.0
    settings = SimulationSettings(
        seed=options.seed,
        readers=options.readers,
        events_per_reader=options.events_per_reader,
        articles=options.generated_articles,
        days=days,
        start_ms=int((time.time() - days * DAY_SECONDS) * 1000),
    )
    given = _given_articles(options.articles) if options.articles else None
    console.print(f"[bold]2/4[/] simulating {options.readers} readers over {_named(options, given)}")
    with console.status("simulating"):
        write_simulation(folder, settings, given)


def _given_articles(path: Path) -> list[Article]:
    return [line.row for line in read_articles(path) if isinstance(line.row, Article)]


def _named(options: DemoOptions, given: list[Article] | None) -> str:
    if given is None:
        return f"{options.generated_articles:,} generated articles (their text is made up)"
    return f"{len(given):,} articles of {options.articles}"


def _replay(
    world: Path, config: Config, environment: Mapping[str, str], options: DemoOptions
) -> tuple[Progress, float]:
    """Send the world and watch until everything is done; the last reading, and the seconds that it took."""
    console.print("[bold]3/4[/] ingesting the articles and replaying the readers' events")
    started = time.monotonic()
    articles = ingest_file(world / ARTICLES_FILE, config)
    events = send_file(world / EVENTS_FILE, config)
    sent = Sent(articles=articles.sent, events=events.sent)
    done_at = 0.0
    with Live(console=console, refresh_per_second=4) as live:
        while True:
            now = _reading(config, environment)
            elapsed = time.monotonic() - started
            live.update(live_view(now, sent, elapsed))
            if not now.caught_up(sent):
                done_at = 0.0
            elif not done_at:
                done_at = elapsed
            elif elapsed - done_at > QUIET_SECONDS + config.refresh.interval_seconds:
                return now, done_at
            if elapsed > options.timeout_seconds:
                raise Unavailable(f"the replay did not end in {elapsed:.0f} s; the logs are in {world.parent / 'logs'}")
            time.sleep(0.5)


def _reading(config: Config, environment: Mapping[str, str]) -> Progress:
    lag = consumer_lag(config.kafka, READ_BY, config.kafka.partitions)
    return Progress.of(read_gauges(environment), sum(lag.values()))


def _shown(
    world: Path, config: Config, progress: Progress, options: DemoOptions, times: tuple[float, float, float]
) -> DemoSummary:
    console.print("[bold]4/4[/] three readers: what they did, the queries written for them, what those find\n")
    api = f"http://{config.api.host}:{config.api.port}"
    events = [line.row for line in read_events(world / EVENTS_FILE) if not hasattr(line.row, "reason")]
    shown = choose_readers(events)
    for user in shown:
        print_reader(user, fetch_reader(api, user, CANDIDATES))
    users = sorted({event.user_id for event in events})
    latencies = _timed_requests(api, users)
    started, ready, replayed = times
    return DemoSummary(
        generated=options.articles is None,
        articles=progress.articles_done,
        events=progress.events_done,
        readers_shown=tuple(shown),
        lists=progress.lists_written,
        fallbacks=progress.fallbacks_written,
        dead_letters=progress.dead_letters,
        stack_seconds=ready - started,
        replay_seconds=replayed,
        signals_p50_seconds=progress.signals_p50_seconds,
        lists_p50_seconds=progress.lists_p50_seconds,
        candidates_p50_ms=median(latencies),
        candidates_p95_ms=quantiles(latencies, n=20)[-1],
        total_seconds=time.monotonic() - started,
        api=api,
    )


def _timed_requests(api: str, users: list[str]) -> list[float]:
    """Milliseconds of candidate requests, one after the other."""
    latencies: list[float] = []
    with httpx.Client(base_url=api, headers=api_headers(), timeout=10.0) as client:
        for number in range(REQUESTS_TIMED):
            started = time.perf_counter()
            client.get(f"/v1/users/{users[number % len(users)]}/candidates", params={"k": 20})
            latencies.append((time.perf_counter() - started) * 1000)
    return latencies


def _print_summary(summary: DemoSummary, keep: bool) -> None:
    table = Table(title="Measured in this run", title_justify="left", show_header=False)
    for name, value in _summary_rows(summary):
        table.add_row(name, value)
    console.print(table)
    if keep:
        reader = summary.readers_shown[0] if summary.readers_shown else "USER"
        console.print(f"The API is up: {summary.api}/docs describes it, `keenstream show {reader}` asks it.")
        console.print("`keenstream stack down` ends everything.")
    else:
        console.print(f"The API was at {summary.api}; everything is down again. `KEEP=1 make demo` leaves it up.")


def _summary_rows(summary: DemoSummary) -> Iterable[tuple[str, Any]]:
    yield "articles indexed", f"{summary.articles:,}" + (" (generated text)" if summary.generated else "")
    yield "events processed", f"{summary.events:,} (simulated readers)"
    yield "query lists by the student", f"{summary.lists:,}"
    yield "lists replaced by the reader's signals", f"{summary.fallbacks:,}"
    yield "dead letters", f"{summary.dead_letters:,}"
    yield "stack ready after", f"{summary.stack_seconds:.1f} s"
    yield "replayed in", f"{summary.replay_seconds:.1f} s"
    yield "event to stored signals, p50", f"≤ {summary.signals_p50_seconds:g} s, all readers at once"
    yield "event to stored list, p50", f"≤ {summary.lists_p50_seconds:g} s, all readers at once"
    yield "candidates request, p50 / p95", f"{summary.candidates_p50_ms:.1f} / {summary.candidates_p95_ms:.1f} ms"
    yield "whole demo", f"{summary.total_seconds:.0f} s"
