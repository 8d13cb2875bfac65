"""What is answered by arm, and what the log says of it: the same of both arms, the same when asked again."""

from datetime import UTC, datetime

import httpx
import msgspec
import pytest

from schemas.codec import EXPOSURES
from schemas.errors import InvalidRecord, Unavailable
from schemas.experiment import Arm, Experiment, Phase, assign_arm
from schemas.exposure import Exposure
from schemas.names import Topic
from stream.api.exposures import TOLD_SECONDS, ExposureLog
from stream.producer import MemoryProducer, Outgoing
from tests.stream.api.conftest import NOW, World

START = datetime(2027, 1, 1, tzinfo=UTC)
EXPERIMENT = Experiment(
    name="path",
    salt="s1",
    arms=(Arm(name="control", path=False), Arm(name="treatment"), Arm(name="explored", exploration=0.5)),
    phases=(Phase(starts_at=START, weights={"control": 0.5, "treatment": 0.5, "explored": 0.0}),),
    overrides={"cid": "control", "tom": "treatment", "eve": "explored"},
)


async def ask(world: World, user_id: str, **params: str | int) -> httpx.Response:
    return await world.client.get(f"/v1/users/{user_id}/candidates", params=params)


async def logged(world: World) -> list[Exposure]:
    await world.exposures.drain()
    sent = [message for message in world.producer.sent if message.topic == Topic.EXPOSURES]
    rows = [EXPOSURES.decode(message.value) for message in sent]
    assert [message.key for message in sent] == [row.user_id.encode() for row in rows]
    world.producer.sent.clear()
    return rows


@pytest.fixture
async def news(world: World) -> World:
    await world.publish(
        rain="rain floods spain", sun="sun over spain", goal="late goal wins cup", cup="cup final tonight"
    )
    return world


class TestWithoutAnExperiment:
    async def test_every_place_is_logged_with_what_is_behind_it(self, news: World) -> None:
        await news.write_list("ann", queries=("rain spain",), generated_at=NOW - 2_000)
        news.know("ann", "sun")
        told = (await ask(news, "ann", k=2)).json()
        rows = await logged(news)
        assert [row.article_id for row in rows] == [found["article_id"] for found in told["candidates"]]
        assert [row.exposure_id for row in rows] == [f"{told['request_id']}:1", f"{told['request_id']}:2"]
        rain = rows[0]
        assert (rain.article_id, rain.source, rain.query_slot) == ("rain", "student", 0)
        assert (rain.model, rain.model_version, rain.prompt_version) == ("student", "7", "p1")
        assert (rain.list_age_ms, rain.reader_signals, rain.exposed_at) == (2_000, 2, NOW)
        assert {(row.experiment, row.arm, row.phase, row.propensity, row.triggered) for row in rows} == {
            ("", "", 0, 1.0, True)
        }

    async def test_a_signal_has_a_slot_of_its_own(self, news: World) -> None:
        await news.write_list("ann", queries=("rain spain",), signals=("cup final",))
        await ask(news, "ann", k=4)
        slots = {row.article_id: (row.source, row.query_slot) for row in await logged(news)}
        assert (slots["rain"], slots["cup"]) == (("student", 0), ("signals", 5))

    async def test_exclusive_is_what_one_source_alone_has_found(self, news: World) -> None:
        await news.write_list("ann", queries=("cup final",))
        await ask(news, "ann", k=2)  # the newest two are rain and sun
        shared = {row.article_id: row.exclusive for row in await logged(news)}
        assert shared["cup"] is True
        await news.write_list("bob", queries=("cup final",), signals=("goal wins cup",))
        await ask(news, "bob", k=2)
        assert not any(row.exclusive for row in await logged(news))

    async def test_an_answer_without_articles_is_one_row_at_place_0(self, world: World) -> None:
        world.know("ann")
        told = (await ask(world, "ann")).json()
        (row,) = await logged(world)
        assert (told["candidates"], row.position, row.article_id, row.triggered) == ([], 0, None, False)
        assert row.exposure_id == f"{told['request_id']}:0"

    async def test_a_reader_of_whom_nothing_is_known_is_not_exposed(self, news: World) -> None:
        assert (await ask(news, "nobody")).status_code == 404
        assert await logged(news) == []

    async def test_an_answer_from_memory_is_logged_too(self, news: World) -> None:
        await news.write_list("ann", queries=("rain spain",), generated_at=NOW - 2_000)
        await ask(news, "ann", k=2)
        fresh = await logged(news)
        news.store.away = True
        news.now_ms += 500
        assert (await ask(news, "ann", k=2)).json()["stale"] is True
        again = await logged(news)
        assert [row.article_id for row in again] == [row.article_id for row in fresh]
        assert {(row.list_age_ms, row.model_version) for row in again} == {(2_500, "7")}


class TestByArm:
    @pytest.fixture
    def experiments(self) -> tuple[Experiment, ...]:
        return (EXPERIMENT,)

    async def test_the_control_arm_gets_what_there_is_without_stored_queries(self, news: World) -> None:
        for user_id in ("cid", "tom"):
            await news.write_list(user_id, queries=("cup final",))
        control, treatment = (await ask(news, "cid", k=2)).json(), (await ask(news, "tom", k=2)).json()
        assert (control["source"], control["arm"], control["list_age_seconds"]) == ("recent", "control", None)
        assert (treatment["source"], treatment["arm"]) == ("student", "treatment")
        assert [found["article_id"] for found in control["candidates"]] == ["rain", "sun"]
        assert treatment["candidates"][0]["article_id"] == "cup"

    async def test_both_arms_ask_the_store_alike_and_log_alike(self, news: World) -> None:
        for user_id in ("cid", "tom"):
            await news.write_list(user_id, queries=("cup final",))
            news.know(user_id)
        reads, rows = [], []
        for user_id in ("cid", "tom"):
            news.store.reads = 0
            await ask(news, user_id, k=2)
            reads.append(news.store.reads)
            rows.append(await logged(news))
        assert reads[0] - reads[1] == 1  # the newest articles, read once for everybody
        for told in rows:
            assert {(row.experiment, row.phase, row.triggered, row.reader_signals) for row in told} == {
                ("path", 0, True, 1)
            }
            assert [row.position for row in told] == [1, 2]

    async def test_without_stored_queries_the_arms_are_not_triggered_and_equal(self, news: World) -> None:
        for user_id in ("cid", "tom"):
            news.know(user_id)
            assert (await ask(news, user_id, k=2)).json()["source"] == "recent"
            assert {row.triggered for row in await logged(news)} == {False}

    async def test_the_arm_is_that_of_assign_arm(self, news: World) -> None:
        arms = set()
        for number in range(12):
            user_id = f"reader-{number}"
            news.know(user_id)
            drawn = assign_arm(user_id, EXPERIMENT, NOW).arm
            assert drawn is not None
            assert (await ask(news, user_id)).json()["arm"] == drawn.name
            arms |= {drawn.name} | {row.arm for row in await logged(news)}
        assert arms == {"control", "treatment"}

    async def test_an_explored_answer_has_the_logged_propensities(self, news: World) -> None:
        await news.write_list("eve", queries=("cup final",))
        shown = set()
        for number in range(40):
            told = (await ask(news, "eve", k=2, request_id=f"r{number}")).json()
            rows = await logged(news)
            shown.add(tuple(found["article_id"] for found in told["candidates"]))
            assert len(rows) == 2
            for row in rows:  # of a pool of 4, half of the time
                assert row.propensity in (0.5 + 0.5 / 4, 0.5 / 4)
        assert len(shown) > 3

    async def test_while_the_store_is_away_the_control_arm_is_shown_no_stored_queries(self, news: World) -> None:
        await news.write_list("cid", queries=("cup final",))
        await ask(news, "cid", k=2)
        news.store.away = True
        told = (await ask(news, "cid", k=2)).json()
        assert (told["source"], told["stale"]) == ("recent", True)
        assert all(row.triggered for row in await logged(news))


class TestHoldout:
    @pytest.fixture
    def experiments(self) -> tuple[Experiment, ...]:
        return (msgspec.structs.replace(EXPERIMENT, holdout=1.0),)

    async def test_it_is_answered_as_without_an_experiment_and_named_in_the_log(self, news: World) -> None:
        await news.write_list("ann", queries=("cup final",))
        assert (await ask(news, "ann")).json()["source"] == "student"
        assert {(row.experiment, row.arm) for row in await logged(news)} == {("path", "holdout")}


class TestRequestIds:
    async def test_asked_again_the_same_answer_comes_and_the_same_rows_are_meant(self, news: World) -> None:
        await news.write_list("ann", queries=("rain spain",))
        first = await ask(news, "ann", k=2, request_id="r-1")
        assert (first.json()["request_id"], first.headers["x-request-id"]) == ("r-1", "r-1")
        await news.write_list("ann", queries=("cup final",), generated_at=NOW + 1)
        news.cache.forget("ann")
        again = await ask(news, "ann", k=2, request_id="r-1")
        assert again.json() == first.json()
        assert [row.exposure_id for row in await logged(news)] == ["r-1:1", "r-1:2"]
        assert (await ask(news, "ann", k=2, request_id="r-2")).json()["candidates"] != first.json()["candidates"]

    async def test_after_a_restart_the_rows_have_the_same_ids(self, news: World) -> None:
        news.know("ann")
        await ask(news, "ann", k=2, request_id="r-1")
        news.requests.forget("ann")
        await ask(news, "ann", k=2, request_id="r-1")
        rows = await logged(news)
        assert rows[:2] == rows[2:]

    async def test_the_id_of_another_readers_request_is_refused(self, news: World) -> None:
        for user_id in ("ann", "bob"):
            news.know(user_id)
        await ask(news, "ann", request_id="r-1")
        response = await ask(news, "bob", request_id="r-1")
        assert response.status_code == 409
        assert "another reader" in response.json()["detail"]

    @pytest.mark.parametrize("request_id", ["", "a\nb", "x" * 121])
    async def test_an_id_that_cannot_be_is_refused(self, news: World, request_id: str) -> None:
        news.know("ann")
        assert (await ask(news, "ann", request_id=request_id)).status_code == 422

    async def test_any_other_id_fits_into_the_header(self, news: World) -> None:
        news.know("ann")
        response = await ask(news, "ann", request_id="日本 1")
        assert response.json()["request_id"] == "日本 1"
        assert (await logged(news))[0].request_id == "日本 1"


class TestLog:
    def row(self, number: int) -> Exposure:
        return Exposure(
            exposure_id=f"r:{number}",
            request_id="r",
            user_id="ann",
            triggered=True,
            position=number,
            propensity=1.0,
            source="recent",
            exposed_at=NOW,
        )

    async def test_the_answer_comes_while_kafka_is_away_and_nothing_is_lost(self, news: World) -> None:
        news.know("ann")
        news.producer.failures = 1
        assert (await ask(news, "ann", k=2)).status_code == 200
        with pytest.raises(Unavailable):
            await news.exposures._send_some()
        assert len(news.exposures) == 2
        assert len(await logged(news)) == 2
        assert len(news.exposures) == 0

    async def test_beyond_its_bound_new_rows_are_dropped_counted_and_told(self) -> None:
        seconds, producer = [0.0], MemoryProducer()
        log = ExposureLog(producer, lambda: seconds[0], limit=3)
        await log.check()
        log.note([self.row(1), self.row(2)])
        log.note([self.row(3), self.row(4)])
        assert (len(log), log.dropped) == (2, 2)
        with pytest.raises(Unavailable, match="2 exposures were dropped"):
            await log.check()
        await log.drain()
        assert [EXPOSURES.decode(message.value).position for message in producer.sent] == [1, 2]
        seconds[0] += TOLD_SECONDS
        await log.check()

    async def test_a_full_queue_is_told_before_rows_are_lost(self) -> None:
        log = ExposureLog(MemoryProducer(), lambda: 0.0, limit=3)
        log.note([self.row(1), self.row(2)])
        with pytest.raises(Unavailable, match="2 of at most 3"):
            await log.check()

    async def test_what_cannot_be_sent_before_the_end_is_counted(self) -> None:
        producer = MemoryProducer()
        producer.failures = 1
        log = ExposureLog(producer, lambda: 0.0)
        log.note([self.row(1)])
        await log.drain()
        assert (len(log), log.dropped, producer.sent) == (0, 1, [])

    async def test_rows_that_the_broker_refuses_do_not_hold_up_the_others(self) -> None:
        class Refusing(MemoryProducer):
            async def send(self, messages: "list[Outgoing]") -> None:  # type: ignore[override]
                raise InvalidRecord("too large")

        log = ExposureLog(Refusing(), lambda: 0.0)
        log.note([self.row(1)])
        await log._send_some()
        assert (len(log), log.dropped) == (0, 1)

    async def test_a_lost_row_makes_the_api_degraded_not_away(self, news: World) -> None:
        news.exposures._lose(1)
        told = await news.client.get("/readyz")
        assert (told.status_code, told.json()["status"]) == (200, "degraded")
