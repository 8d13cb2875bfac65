import httpx
import pytest

from schemas.codec import EVENTS
from schemas.errors import Unavailable
from schemas.names import Topic
from stream.api.event_intake import SEND_EVENTS
from stream.api.http import MAX_BODY_BYTES
from stream.producer import Outgoing
from tests.stream.api.conftest import NOW, World, body, event


async def post(world: World, content: bytes) -> httpx.Response:
    return await world.client.post("/v1/events", content=content)


async def test_events_reach_the_broker_keyed_by_reader(world: World) -> None:
    response = await post(world, body(event("e1"), event("e2", user_id="bob", kind="page")))
    assert response.status_code == 200
    assert response.json() == {
        "accepted": 2,
        "rejected": 0,
        "unknown": 0,
        "results": [{"status": "accepted"}, {"status": "accepted"}],
    }
    assert [(sent.topic, sent.key) for sent in world.producer.sent] == [
        (Topic.USER_EVENTS, b"ann"),
        (Topic.USER_EVENTS, b"bob"),
    ]
    assert EVENTS.decode(world.producer.sent[0].value).text == "rain in spain"


BAD_EVENTS = {
    "unknown kind": (event(kind="purchase"), "purchase"),
    "missing time": (event(occurred_at=None), "occurred_at"),
    "future time": (event(occurred_at=NOW + 400_000), "in the future"),
    "microseconds": (event(occurred_at=NOW * 1000), "occurred_at"),
    "empty reader": (event(user_id=""), "user_id"),
    "control characters": (event(user_id="a\nb"), "user_id"),
    "a control character at the end": (event(user_id="a\n"), "user_id"),
    "long text": (event(text="x" * 2_001), "text"),
    "no event id": (event(None), "event_id"),
    "not an object": ("text", "object"),
    "null": (None, "object"),
}


@pytest.mark.parametrize(("wrong", "named"), BAD_EVENTS.values(), ids=BAD_EVENTS.keys())
async def test_a_bad_event_is_told_apart_and_the_others_are_taken(world: World, wrong: object, named: str) -> None:
    response = await post(world, body(event("good"), wrong, event("good too")))
    assert response.status_code == 200
    statuses = [result["status"] for result in response.json()["results"]]
    assert statuses == ["accepted", "rejected", "accepted"]
    assert named in response.json()["results"][1]["reason"]
    assert len(world.producer.sent) == 2


async def test_when_no_event_can_be_taken_the_status_says_so(world: World) -> None:
    response = await post(world, body(event(kind="purchase")))
    assert response.status_code == 422
    assert response.json()["rejected"] == 1


NO_BATCH = [b"", b"{", b"[]", b'{"events": []}', b'{"events": 5}', b"\xff\xfe", b"null", body(*[event()] * 1_001)]


@pytest.mark.parametrize("content", NO_BATCH, ids=lambda content: content[:12].decode(errors="replace"))
async def test_what_is_no_batch_is_refused_with_what_to_send(world: World, content: bytes) -> None:
    response = await post(world, content)
    assert response.status_code == 422
    assert '{"events": [...]}' in response.json()["detail"]
    assert world.producer.sent == []


async def test_a_thousand_events_are_one_batch(world: World) -> None:
    response = await post(world, body(*[event(f"e{n}") for n in range(1_000)]))
    assert response.json()["accepted"] == 1_000


async def test_more_than_a_mebibyte_is_refused(world: World) -> None:
    response = await post(world, b" " * (MAX_BODY_BYTES + 1))
    assert response.status_code == 413
    assert "fewer events" in response.json()["detail"]


async def test_while_kafka_is_away_nothing_is_called_accepted(world: World) -> None:
    world.producer.failures = 1
    response = await post(world, body(event(), event(kind="purchase")))
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert [result["status"] for result in response.json()["results"]] == ["unknown", "rejected"]


async def test_when_kafka_goes_away_in_the_middle_it_is_told_which_events_are_safe(world: World) -> None:
    class OneFails:
        sent: list[Outgoing] = []  # noqa: RUF012  # one test, one instance

        async def send(self, messages: list[Outgoing]) -> None:
            if messages[0].value and b'"e50"' in messages[0].value:
                raise Unavailable("Kafka does not answer")

    world.producer.send = OneFails().send  # type: ignore[method-assign,assignment]
    response = await post(world, body(*[event(f"e{n}") for n in range(3 * SEND_EVENTS)]))
    statuses = [result["status"] for result in response.json()["results"]]
    assert response.status_code == 503
    assert statuses == ["accepted"] * SEND_EVENTS + ["unknown"] * SEND_EVENTS + ["accepted"] * SEND_EVENTS
