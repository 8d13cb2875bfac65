"""The whole loop as a user drives it, by command line and API: real Kafka, Triton, Milvus and the real models."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from keenstream.stack.control import running_stack
from keenstream.stack.loop import loop_workers
from keenstream.stack.options import StackOptions
from offline.release.repository import served_models
from schemas.article import Article
from schemas.codec import ARTICLES, EVENTS
from schemas.config import load_config
from schemas.event import Event, Kind
from schemas.names import Model

pytestmark = [pytest.mark.stack]
NOW = int(time.time() * 1000)
STORIES = {
    "pumps": ("Heat pump sales overtake gas boilers for the first time", "Buyers name running costs and subsidies."),
    "roses": ("Rose growers fear a new blight after the wet spring", "Gardeners are told to burn infected leaves."),
    "marathon": ("City marathon moves its start to avoid the heat", "Runners will set off at six in the morning."),
    "chess": ("Teenager beats the world champion at rapid chess", "The final game ended after nineteen moves."),
    "bakery": ("Sourdough bakery wins the national bread award", "The judges praised its dark crust."),
}


class Loop:
    """A running stack, and how a user reaches it."""

    def __init__(self, home: Path, api: str, work: Path) -> None:
        self.home, self.work = home, work
        self.client = httpx.Client(base_url=api, timeout=15.0)

    def run(self, *arguments: str, expect: int = 0) -> str:
        """A command of ours; its output."""
        done = subprocess.run(
            [sys.executable, "-m", "keenstream.cli", *arguments],
            env={**os.environ, "KEENSTREAM_HOME": str(self.home)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == expect, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def post(self, *events: Event) -> dict[str, Any]:
        answer = self.client.post("/v1/events", json={"events": [json.loads(EVENTS.encode(event)) for event in events]})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def get(self, path: str, **parameters: Any) -> dict[str, Any]:
        answer = self.client.get(path, params=parameters)
        return dict(answer.json()) if answer.status_code == 200 else {}

    def search(self, text: str) -> list[str]:
        answer = self.client.post("/v1/search", json={"query": text, "k": 3})
        return [row["title"] for row in answer.json().get("articles", [])] if answer.status_code == 200 else []


def eventually(condition: Callable[[], bool], what: str, timeout_seconds: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_seconds:.0f} s"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory, model_repository: Path) -> Iterator[Loop]:
    home, work = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("work")
    config = load_config(None, {"KEENSTREAM_REFRESH_INTERVAL_SECONDS": "1"})
    models = served_models(model_repository)
    options = StackOptions(repository=str(model_repository), models=models, workers=loop_workers(config))
    with running_stack(home, options, config) as state:
        running = load_config(None, state.environment)
        loop = Loop(home, f"http://{running.api.host}:{running.api.port}", work)
        with loop.client:
            loop.run("ingest", str(_feed(work)))
            eventually(lambda: loop.search("heat pump sales")[:1] == [STORIES["pumps"][0]], "the articles")
            yield loop


def _feed(folder: Path) -> Path:
    path = folder / "articles.jsonl"
    rows = [
        Article(
            article_id=name, title=title, summary=summary, url=f"https://news.example/{name}", source="test",
            published_at=NOW - 60_000,
        )
        for name, (title, summary) in STORIES.items()
    ]  # fmt: skip
    path.write_bytes(b"\n".join(map(ARTICLES.encode, rows)) + b"\nnot an article\n")
    return path


def event(user: str, number: int, text: str, kind: Kind = "search", article_id: str | None = None) -> Event:
    at = int(time.time() * 1000) - 1_000 + number
    return Event(event_id=f"{user}-{number}", user_id=user, kind=kind, text=text, occurred_at=at, article_id=article_id)


def titles(answer: dict[str, Any]) -> list[str]:
    return [row["title"] for row in answer.get("candidates", [])]


def test_an_event_becomes_candidates_found_by_the_readers_signals_and_the_students_list(
    loop: Loop, served_prompt: str
) -> None:
    answer = loop.post(event("ann", 1, "heat pump running costs"), event("ann", 2, "heat pump subsidy"))
    assert answer["accepted"] == 2
    eventually(lambda: STORIES["pumps"][0] in titles(loop.get("/v1/users/ann/candidates", k=3)), "candidates")
    eventually(
        lambda: (
            {row["source"] for row in loop.get("/v1/users/ann/queries").get("queries", [])} == {"student", "signals"}
        ),
        "a list by the student",
    )
    candidates = loop.get("/v1/users/ann/candidates", k=5)
    assert candidates["source"] == "student"
    assert candidates["list_age_seconds"] >= 0
    assert all(row["query"] and row["url"] and row["score"] > 0 for row in candidates["candidates"])
    queries = loop.get("/v1/users/ann/queries")["queries"]
    assert {row["prompt_version"] for row in queries if row["source"] == "student"} == {served_prompt}


def test_the_profile_holds_what_was_sent_and_a_repeated_event_changes_nothing(loop: Loop) -> None:
    first = event("bob", 1, "rose blight treatment")
    loop.post(first, first)
    eventually(lambda: bool(loop.get("/v1/users/bob/profile").get("search")), "the profile")
    before = loop.get("/v1/users/bob/profile")
    loop.post(first)
    time.sleep(2.0)
    assert loop.get("/v1/users/bob/profile") == before
    assert [row["text"] for row in before["search"]] == ["rose blight treatment"]


def test_articles_that_were_clicked_or_excluded_are_not_offered_again(loop: Loop) -> None:
    loop.post(event("cid", 1, STORIES["chess"][0], "click", article_id="chess"), event("cid", 2, "rapid chess opening"))
    eventually(lambda: len(titles(loop.get("/v1/users/cid/candidates", k=5))) == 4, "candidates")
    answer = loop.get("/v1/users/cid/candidates", k=5, exclude="bakery")
    assert STORIES["chess"][0] not in titles(answer)
    assert STORIES["bakery"][0] not in titles(answer)


def test_show_prints_a_reader(loop: Loop) -> None:
    loop.post(event("dora", 1, "sourdough starter"))
    eventually(lambda: bool(loop.get("/v1/users/dora/queries").get("queries")), "queries")
    assert "sourdough starter" in loop.run("show", "dora")
    shown = json.loads(loop.run("show", "dora", "--json"))
    assert shown["profile"]["user_id"] == "dora"


def test_an_unknown_reader_is_said_to_be_unknown(loop: Loop) -> None:
    assert "no reader nobody is known" in loop.run("show", "nobody", expect=2)


def test_a_file_with_a_broken_line_names_it_and_sends_the_rest(loop: Loop) -> None:
    path = loop.work / "events.jsonl"
    path.write_bytes(EVENTS.encode(event("eve", 1, "city marathon")) + b"\n{}\n" + EVENTS.encode(event("eve", 2, "5k")))
    output = loop.run("send", str(path))
    assert "2 events sent" in output
    assert "line 2" in output
    eventually(lambda: bool(loop.get("/v1/users/eve/profile")), "the profile")


def test_dead_letters_are_listed_without_and_shown_with_the_readers_text(loop: Loop) -> None:
    future = Event(event_id="f", user_id="fay", kind="page", text="secret text", occurred_at=NOW + 10**8)
    path = loop.work / "future.jsonl"
    path.write_bytes(EVENTS.encode(future))
    loop.run("send", str(path))
    eventually(lambda: bool(json.loads(loop.run("dead-letters", "list", "--json"))), "the dead letter")
    (letter,) = json.loads(loop.run("dead-letters", "list", "--stage", "profiles", "--json"))
    assert "in the future" in letter["reason"]
    assert "secret text" not in loop.run("dead-letters", "list")
    assert "secret text" in loop.run("dead-letters", "show", letter["id"])


def test_models_list_shows_what_is_loaded(loop: Loop, served_prompt: str) -> None:
    models = {row["name"]: row for row in json.loads(loop.run("models", "list", "--json"))}
    assert set(models) == {Model.STUDENT, Model.EMBEDDER, Model.CLEANER}
    assert models[Model.CLEANER]["model_version"].startswith("keenstream-cleaner-")
    assert models[Model.STUDENT]["prompt_version"] == served_prompt


def test_every_part_is_ready_by_a_real_request(loop: Loop) -> None:
    answer = loop.get("/readyz")
    assert answer["status"] == "ready"
    assert {row["part"] for row in answer["parts"]} == {"kafka", "milvus", "profiles", "embedder", "exposures"}


def test_stack_status_names_every_part(loop: Loop) -> None:
    status = loop.run("stack", "status")
    for part in ("kafka", "milvus", "triton", "profiles", "signals", "interests", "articles", "api"):
        assert part in status


def test_live_readers_teach_their_profiles_and_are_counted(loop: Loop) -> None:
    world = loop.work / "world"
    loop.run("simulate", str(world), "--readers", "6", "--generated", "60", "--days", "1", "--until-now")
    loop.run("ingest", str(world / "articles.jsonl"))
    said = loop.run("simulate", str(world), "--live", "--seconds", "12", "--speed", "20000", "--json")
    found = json.loads(said[said.index("{") :])
    assert found["visits"] > 10
    assert (found["errors"], found["given_up"]) == ({}, 0)
    assert sum(row["shown"] for row in found["by_source"].values()) > 0
    eventually(lambda: bool(loop.get("/v1/users/reader-000001/profile")), "the profile")
