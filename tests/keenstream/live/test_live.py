"""Live readers against the API over twins, and against servers that are busy, broken and away."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import httpx
import msgspec
import pytest

from keenstream.live.asking import TRIES, Asking
from keenstream.live.player import LivePlayer, LiveSettings
from keenstream.live.tally import LiveTally
from keenstream.live.view import as_text
from keenstream.live.world import LiveReader, LiveWorld, looked_at, make_world, read_world
from offline.simulate import SimulationSettings, write_simulation
from offline.simulate.impressions import IDLE, ON_TOPIC, WANTED
from offline.simulate.truth import ArticleTruth, InterestTruth, ReaderTruth
from schemas.article import Article
from schemas.config import Api
from schemas.errors import UsageError
from schemas.experiment import Arm, Experiment, Phase
from schemas.names import Topic
from tests.stream.api.conftest import NOW, World

TITLES = {"moon": "Moon rocket lands again", "kite": "Kite festival opens", "tax": "New tax on cakes"}
INTEREST = InterestTruth("space", ("rocket",), 1.0, 0, 10)


def small_world() -> LiveWorld:
    articles = [
        Article(article_id=name, title=title, url=f"https://news.example/{name}", source="wire", published_at=NOW)
        for name, title in TITLES.items()
    ]
    truths = [
        ArticleTruth("moon", "space", ("rocket",)),
        ArticleTruth("kite", "space", ("kite",)),
        ArticleTruth("tax", "money", ("cake",)),
    ]
    past = InterestTruth("money", ("cake",), 1.0, 0, 5)
    return make_world(articles, truths, [ReaderTruth("ann", False, "balanced", "early", (past, INTEREST))])


class Played:
    """A player over an HTTP transport without waiting."""

    def __init__(self, client: httpx.AsyncClient, *, seconds: float | None = None, concurrency: int = 4) -> None:
        self.pauses: list[float] = []
        self.tally, rng = LiveTally(), Random(5)
        self.asking = Asking(client, self.tally, rng, sleep=self._sleep, monotonic=lambda: 0.0)
        settings = LiveSettings(run="t", seconds=seconds, concurrency=concurrency, places=3)
        self.player = LivePlayer(
            settings, small_world(), self.asking, self.tally, rng, clock_ms=lambda: NOW, sleep=self._sleep
        )

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)


def answering(handler: Callable[[httpx.Request], httpx.Response]) -> Played:
    return Played(httpx.AsyncClient(transport=httpx.MockTransport(handler), base_url="http://api"))


async def test_readers_use_the_api_and_their_clicks_follow_interest_and_arm() -> None:
    phase = msgspec.convert({"starts_at": "2020-01-01T00:00:00Z", "weights": {"control": 0.0, "path": 1.0}}, Phase)
    arms = (Arm(name="control", path=False), Arm(name="path"))
    world = World(Api(), (Experiment(name="live", salt="s", arms=arms, phases=(phase,)),))
    await world.publish(**TITLES)
    world.know("ann")
    async with world.client:
        played = Played(world.client)
        reader = small_world().readers[0]
        for _ in range(150):
            await played.player.visit(reader)
    found = played.tally.summary(1.0)
    assert (found.visits, found.errors, found.given_up, found.unknown_readers) == (150, {}, 0, 0)
    assert list(found.by_arm) == ["path"]
    assert found.by_arm["path"].shown == 450
    sent = [msgspec.json.decode(row.value or b"{}") for row in world.producer.sent if row.topic == Topic.OUTCOMES]
    kinds = Counter(row["kind"] for row in sent)
    assert kinds["visit"] == 150
    assert kinds["click"] == kinds["dwell"] == found.by_arm["path"].clicks
    clicks = Counter(row["article_id"] for row in sent if row["kind"] == "click")
    assert clicks["moon"] > 3 * (clicks["kite"] + 1) > clicks["tax"]
    events = [msgspec.json.decode(row.value or b"{}") for row in world.producer.sent if row.topic == Topic.USER_EVENTS]
    assert Counter(row["kind"] for row in events)["click"] == kinds["click"]
    assert len({row["event_id"] for row in events}) == len(events)


def test_what_is_clicked_depends_on_the_interest_that_holds_now() -> None:
    world = small_world()
    (reader,) = world.readers
    assert reader.interests == (INTEREST,)
    assert [reader.appeal(world.truths[name]) for name in TITLES] == [WANTED, ON_TOPIC, IDLE]
    assert reader.appeal(None) == IDLE
    assert looked_at(1) == 1.0 > looked_at(2) > looked_at(3)


async def test_a_busy_server_is_asked_again_after_growing_pauses_and_then_given_up() -> None:
    played = answering(lambda _: httpx.Response(503))
    assert await played.asking.ask("GET", "/x") is None
    assert played.tally.summary(1.0).errors == {"503": TRIES}
    assert played.tally.given_up == 1
    assert len(played.pauses) == TRIES - 1
    assert all(0.1 * 2**n <= pause <= 0.3 * 2**n for n, pause in enumerate(played.pauses))


async def test_the_pause_that_the_server_asks_for_is_kept() -> None:
    answers = iter([httpx.Response(429, headers={"retry-after": "4"}), httpx.Response(200)])
    played = answering(lambda _: next(answers))
    response = await played.asking.ask("GET", "/x")
    assert response is not None
    assert response.status_code == 200
    assert 2 <= played.pauses[0] <= 6
    assert (played.tally.errors, played.tally.given_up) == ({"429": 1}, 0)


@pytest.mark.parametrize("answer", [httpx.Response(200, text="<html>"), httpx.Response(401), httpx.Response(404)])
async def test_no_answer_ends_a_visit_and_not_the_run(answer: httpx.Response) -> None:
    played = answering(lambda _: answer)
    await played.player.visit(small_world().readers[0])
    assert played.tally.visits == 1
    assert not played.tally.by_arm


async def test_a_server_that_is_away_is_counted() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    played = answering(refuse)
    await played.player.visit(small_world().readers[0])
    assert set(played.tally.errors) == {"ConnectError"}
    assert played.tally.given_up >= 1


async def test_visits_at_once_are_bounded_and_the_run_ends_in_time() -> None:
    inside = most = 0

    async def slow(_: httpx.Request) -> httpx.Response:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.01)
        inside -= 1
        return httpx.Response(404)

    client = httpx.AsyncClient(transport=httpx.MockTransport(slow), base_url="http://api")
    played = Played(client, seconds=0.3, concurrency=3)
    await asyncio.wait_for(played.player.run(), 5)
    assert most == 3
    assert played.tally.visits > 10


def test_a_written_world_is_read(tmp_path: Path) -> None:
    write_simulation(tmp_path, SimulationSettings(readers=5, articles=50, days=2.0))
    world = read_world(tmp_path)
    assert (len(world.readers), len(world.articles), len(world.truths)) == (5, 50, 50)
    assert all(isinstance(reader, LiveReader) and reader.interests for reader in world.readers)


def test_a_folder_without_a_world_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="keenstream simulate"):
        read_world(tmp_path / "none")


def test_a_run_without_answers_has_no_figures() -> None:
    found = LiveTally().summary(0.0)
    assert (found.latency_ms, found.by_arm, found.requests_per_second) == ({}, {}, 0.0)
    assert as_text(found).renderables
