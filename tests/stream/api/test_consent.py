"""Events without consent are answered and stored nowhere."""

from tests.stream.api.conftest import NOW, World, body, event


async def test_an_event_without_consent_is_dropped_and_never_sent(world: World) -> None:
    response = await world.client.post("/v1/events", content=body(event("e1"), event("e2", consent=False)))
    assert response.status_code == 200
    answer = response.json()
    assert [result["status"] for result in answer["results"]] == ["accepted", "dropped"]
    assert (answer["accepted"], answer["dropped"], answer["rejected"]) == (1, 1, 0)
    assert len(world.producer.sent) == 1


async def test_nothing_is_wrong_with_a_batch_that_is_all_without_consent(world: World) -> None:
    late = event("e1", consent=False, occurred_at=NOW + 10**9)
    response = await world.client.post("/v1/events", content=body(late))
    assert (response.status_code, response.json()["dropped"]) == (200, 1)
    assert not world.producer.sent
