"""POST /v1/outcomes: each is checked by itself, told apart, and on the topic when the answer comes."""

from typing import Any

import httpx
import msgspec
import pytest

from schemas.codec import OUTCOMES
from schemas.names import Topic
from stream.api.messages import CandidateAnswer
from stream.api.request_memory import RequestMemory
from tests.stream.api.conftest import HOUR, NOW, World


def outcome(**fields: object) -> dict[str, object]:
    plain = {"outcome_id": "o1", "user_id": "ann", "kind": "click", "article_id": "rain", "occurred_at": NOW}
    return {name: value for name, value in {**plain, **fields}.items() if value is not None}


async def post(world: World, *outcomes: object) -> httpx.Response:
    return await world.client.post("/v1/outcomes", content=msgspec.json.encode({"outcomes": outcomes}))


async def result(world: World, **fields: object) -> dict[str, Any]:
    (told,) = (await post(world, outcome(**fields))).json()["results"]
    return dict(told)


@pytest.fixture
async def answered(world: World) -> World:
    await world.publish(rain="rain floods spain")
    world.know("ann")
    await world.client.get("/v1/users/ann/candidates", params={"request_id": "r-1"})
    return world


async def test_an_outcome_of_an_answer_is_on_the_topic_and_is_no_event(answered: World) -> None:
    response = await post(answered, outcome(request_id="r-1"))
    assert (response.status_code, response.json()) == (
        200,
        {"accepted": 1, "rejected": 0, "unknown": 0, "results": [{"status": "accepted"}]},
    )
    (message,) = answered.producer.sent
    assert (message.topic, message.key) == (Topic.OUTCOMES, b"ann")
    assert OUTCOMES.decode(message.value).request_id == "r-1"


async def test_an_unknown_request_is_a_warning(answered: World) -> None:
    told = await result(answered, request_id="r-9")
    assert told["status"] == "accepted"
    assert "does not know the request" in told["warning"]
    assert len(answered.producer.sent) == 1


async def test_a_visit_without_a_request_is_fine(world: World) -> None:
    assert await result(world, kind="visit", article_id=None) == {"status": "accepted"}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"request_id": "r-1", "user_id": "bob"}, "another reader"),
        ({"article_id": None}, "needs the article_id"),
        ({"kind": "dwell", "article_id": None}, "needs the article_id"),
        ({"value": 3}, "a click is 1"),
        ({"value": -1, "kind": "dwell"}, "value"),
        ({"kind": "like"}, "like"),
        ({"occurred_at": NOW + HOUR}, "in the future"),
        ({"outcome_id": None}, "outcome_id"),
        ({"user_id": ""}, "user_id"),
    ],
)
async def test_a_wrong_outcome_is_rejected_by_itself(answered: World, fields: dict[str, Any], reason: str) -> None:
    response = await post(answered, outcome(**fields), outcome(outcome_id="o2", request_id="r-1"))
    wrong, right = response.json()["results"]
    assert (response.status_code, wrong["status"], right) == (200, "rejected", {"status": "accepted"})
    assert reason in wrong["reason"]
    assert [OUTCOMES.decode(message.value).outcome_id for message in answered.producer.sent] == ["o2"]


async def test_without_a_good_one_it_is_422(world: World) -> None:
    assert (await post(world, outcome(kind="like"))).status_code == 422


async def test_while_kafka_is_away_it_says_what_to_send_again(world: World) -> None:
    world.producer.failures = 1
    response = await post(world, outcome(), outcome(outcome_id="o2", kind="like"))
    assert response.status_code == 503
    assert [told["status"] for told in response.json()["results"]] == ["unknown", "rejected"]


@pytest.mark.parametrize("content", [b"", b"{}", b'{"outcomes": []}', b'{"outcomes": 5}', b"\xff"])
async def test_what_is_no_batch_is_refused_with_what_to_send(world: World, content: bytes) -> None:
    response = await world.client.post("/v1/outcomes", content=content)
    assert response.status_code == 422
    assert '"outcomes"' in response.json()["detail"]


class TestRequestMemory:
    def answer(self, request_id: str, user_id: str = "ann") -> CandidateAnswer:
        return CandidateAnswer(
            user_id=user_id, source="recent", list_age_seconds=None, stale=False, candidates=(), request_id=request_id
        )

    def test_the_oldest_are_forgotten_first(self) -> None:
        memory = RequestMemory(known=2, kept=1)
        for name in ("r1", "r2", "r3"):
            memory.note(self.answer(name), repeatable=True)
        assert [memory.reader(name) for name in ("r1", "r2", "r3")] == [None, "ann", "ann"]
        assert [memory.answer(name) is not None for name in ("r1", "r2", "r3")] == [False, False, True]

    def test_an_erased_reader_leaves_nothing(self) -> None:
        memory = RequestMemory()
        for name, user_id in (("r1", "ann"), ("r2", "bob"), ("r3", "ann")):
            memory.note(self.answer(name, user_id), repeatable=True)
        memory.forget("ann")
        assert [memory.reader(name) for name in ("r1", "r2", "r3")] == [None, "bob", None]
        assert memory.answer("r1") is None
