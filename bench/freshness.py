"""How soon an event, and an article, is seen in the answers of an idle system.

    keenstream bench freshness --trials 20

An event: from the API's acceptance until the candidates of that reader rest on it; once by the reader's own signals,
once by a list of the student that was written after it. Each trial has a reader of its own whose list is due: half of
them new, half known with an older list and enough new signal. An article: from the send until a search finds it.
Real Kafka, Triton, Milvus and models; nothing else runs.
"""

import json as jsonlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import httpx
import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench._machine import Machine, this_machine
from keenstream.commands.feed import ingest_file
from keenstream.stack.control import running_stack
from keenstream.stack.folders import state_folder
from keenstream.stack.loop import loop_workers
from keenstream.stack.options import StackOptions
from offline.release.models import build_models
from offline.release.repository import served_models
from offline.simulate import ARTICLES_FILE, SimulationSettings, write_simulation
from schemas.article import Article
from schemas.codec import ARTICLES
from schemas.config import Config, load_config
from schemas.errors import KeenstreamError

DAY_MS = 86_400_000
POLL_SECONDS = 0.02
TIMEOUT_SECONDS = 60.0
SUBJECTS = (
    "copper mine",
    "coral reef",
    "tram line",
    "violin maker",
    "salt marsh",
    "night market",
    "ice rink",
    "bee keeper",
)
STORIES = (
    "Town council votes on the future of the {}",
    "Museum opens a long awaited show about the {}",
    "Court halts the sale of the {}",
    "Fire destroys the archive of the {}",
    "Film about the {} wins the audience prize",
    "Students measure the noise around the {}",
)  # far enough apart that none is taken for another's story

console = Console(highlight=False, stderr=True)
output = Console(highlight=False)


class Delay(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds over the trials."""

    what: str
    trials: int
    p50_seconds: float
    p95_seconds: float
    most_seconds: float

    @classmethod
    def of(cls, what: str, seconds: Sequence[float]) -> "Delay":
        p50, p95 = np.percentile(seconds, [50, 95])
        return cls(
            what=what, trials=len(seconds), p50_seconds=float(p50), p95_seconds=float(p95), most_seconds=max(seconds)
        )


class FreshnessReport(msgspec.Struct, frozen=True, kw_only=True):
    machine: Machine
    articles: int
    refresh_interval_seconds: float
    delays: tuple[Delay, ...]


def main(
    trials: Annotated[int, typer.Option(min=2, max=len(SUBJECTS) * len(STORIES), help="Of each sort.")] = 20,
    articles: Annotated[int, typer.Option(min=100, help="Articles in the index.")] = 2_000,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file too.")] = None,
) -> None:
    """Measure freshness. Example: `keenstream bench freshness --trials 20`"""
    with TemporaryDirectory(prefix="keenstream-bench-") as scratch:
        report = measure(Path(scratch), trials, articles)
    table = Table("on an idle system", "trials", "p50", "p95", "max", title="Freshness, seconds")
    for row in report.delays:
        figures = (row.p50_seconds, row.p95_seconds, row.most_seconds)
        table.add_row(row.what, str(row.trials), *(f"{value:.2f}" for value in figures))
    output.print(table)
    if json:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))


def measure(scratch: Path, trials: int, articles: int) -> FreshnessReport:
    with _running(scratch) as (config, client):
        _index(scratch / "world", config, client, articles)
        console.print("articles")
        found = [_article_delay(scratch, config, client, number) for number in track(range(trials), console=console)]
        console.print("readers")
        known = [f"known-{number}" for number in range(trials - trials // 2)]
        _make_known(client, known, config)
        users = [*(f"new-{number}" for number in range(trials // 2)), *known]
        delays = [_event_delay(client, user, number) for number, user in enumerate(track(users, console=console))]
    return FreshnessReport(
        machine=this_machine(),
        articles=articles,
        refresh_interval_seconds=config.refresh.interval_seconds,
        delays=(
            Delay.of("event → candidates by the reader's signals", [by_signals for by_signals, _ in delays]),
            Delay.of("event → candidates by a new list of the student", [by_list for _, by_list in delays]),
            Delay.of("article sent → found by a search", found),
        ),
    )


@contextmanager
def _running(scratch: Path) -> Iterator[tuple[Config, httpx.Client]]:
    console.print("starting the stack")
    repository = build_models(state_folder(), lambda step: None).repository
    config = load_config()
    models = served_models(repository)
    options = StackOptions(repository=str(repository), models=models, workers=loop_workers(config))
    with running_stack(scratch, options, config) as state:
        running = load_config(None, state.environment)
        with httpx.Client(base_url=f"http://{running.api.host}:{running.api.port}", timeout=20.0) as client:
            yield running, client


def _index(folder: Path, config: Config, client: httpx.Client, articles: int) -> None:
    console.print(f"indexing {articles:,} generated articles")
    settings = SimulationSettings(readers=1, articles=articles, days=1.0, start_ms=_now_ms() - DAY_MS)
    write_simulation(folder, settings)
    ingest_file(folder / ARTICLES_FILE, config)
    last = (folder / ARTICLES_FILE).read_bytes().splitlines()[-1]
    _until(lambda: _finds(client, ARTICLES.decode(last)), "the last article")


def _article_delay(scratch: Path, config: Config, client: httpx.Client, number: int) -> float:
    story = STORIES[number // len(SUBJECTS) % len(STORIES)]
    article = Article(
        article_id=f"fresh-{number}",
        title=story.format(SUBJECTS[number % len(SUBJECTS)]),
        url="https://news.example/fresh",
        source="bench",
        published_at=_now_ms(),
    )
    path = scratch / "fresh.jsonl"
    path.write_bytes(ARTICLES.encode(article))
    started = time.monotonic()
    ingest_file(path, config)
    return _until(lambda: _finds(client, article), "an article") - started


def _finds(client: httpx.Client, article: Article) -> bool:
    answer = client.post("/v1/search", json={"query": article.title, "k": 3})
    return article.article_id in {row["article_id"] for row in _body(answer).get("articles", [])}


def _make_known(client: httpx.Client, users: Sequence[str], config: Config) -> None:
    """Readers with a list, whose interval has passed: twice, as events that two flushes took have led to two lists."""
    for user in users:
        _send(client, user, [f"{subject} guide" for subject in SUBJECTS[:5]])
    for user in users:
        _until(lambda user=user: _listed_at(client, user) > 0, "a first list")  # type: ignore[misc]
    time.sleep(2 * config.refresh.interval_seconds + 2.0)


def _event_delay(client: httpx.Client, user: str, number: int) -> tuple[float, float]:
    """Seconds from the acceptance until the reader's signals, and a list written after it, are used."""
    text = f"{SUBJECTS[number % len(SUBJECTS)]} opening hours {number}"
    before = _listed_at(client, user)
    _send(client, user, [f"{text} today", text])
    accepted = time.monotonic()
    by_signals = _until(lambda: text in _candidate_queries(client, user), "the signals") - accepted
    by_list = _until(lambda: _listed_at(client, user) > before, "the list") - accepted
    return by_signals, by_list


def _candidate_queries(client: httpx.Client, user: str) -> set[str]:
    answer = client.get(f"/v1/users/{user}/candidates", params={"k": 100})
    return {row["query"] for row in _body(answer).get("candidates", [])}


def _listed_at(client: httpx.Client, user: str) -> int:
    """UTC ms of the reader's newest list by the student; 0 = none."""
    rows: list[dict[str, Any]] = _body(client.get(f"/v1/users/{user}/queries")).get("queries", [])
    return max((row["generated_at"] for row in rows if row["source"] == "student"), default=0)


def _send(client: httpx.Client, user: str, texts: Sequence[str]) -> None:
    now_ms = _now_ms()
    rows = [
        {
            "event_id": f"{user}-{now_ms}-{at}",
            "user_id": user,
            "kind": "search",
            "text": text,
            "occurred_at": now_ms + at - 10,
        }
        for at, text in enumerate(texts)
    ]
    answer = client.post("/v1/events", content=jsonlib.dumps({"events": rows}))
    if answer.status_code != httpx.codes.OK or answer.json()["accepted"] != len(rows):
        raise KeenstreamError(f"the API did not take the events: {answer.text[:300]}")


def _body(answer: httpx.Response) -> dict[str, Any]:
    """What was answered; nothing for an unknown reader or a part that is not up yet."""
    if answer.status_code in (httpx.codes.NOT_FOUND, httpx.codes.SERVICE_UNAVAILABLE):
        return {}
    if answer.status_code != httpx.codes.OK:
        raise KeenstreamError(f"{answer.request.url} answered {answer.status_code}: {answer.text[:300]}")
    return dict(answer.json())


def _until(condition: Callable[[], bool], what: str) -> float:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise KeenstreamError(f"{what} did not appear within {TIMEOUT_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)
    return time.monotonic()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    typer.run(main)
