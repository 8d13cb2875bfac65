"""Health, readiness, metrics, documentation."""

from typing import Any

import hypothesis
import pytest
import schemathesis
from prometheus_client.parser import text_string_to_metric_families

from schemas.config import Api
from schemas.errors import UsageError
from stream.api.access import SCOPES, check_exposure, key_line, new_key
from stream.api.server import listen
from tests.stream.api.conftest import World, body, event

KEY = new_key()


async def test_the_process_is_healthy_whatever_its_parts_are(world: World) -> None:
    world.store.away = world.embedder.away = world.kafka_away = True
    response = await world.client.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_ready_when_every_part_answers(world: World) -> None:
    response = await world.client.get("/readyz")
    assert (response.status_code, response.json()["status"]) == (200, "ready")
    assert {part["part"] for part in response.json()["parts"]} == {
        "kafka",
        "milvus",
        "profiles",
        "exposures",
        "embedder",
    }


async def down_parts(world: World) -> tuple[int, dict[str, str]]:
    response = await world.client.get("/readyz")
    return response.status_code, {part["part"]: part["detail"] for part in response.json()["parts"] if not part["up"]}


async def test_a_part_that_is_down_is_named_with_how_to_start_it(world: World) -> None:
    world.store.away = world.kafka_away = True
    status, down = await down_parts(world)
    assert status == 503
    assert set(down) == {"milvus", "kafka"}
    assert all("keenstream stack up" in detail for detail in down.values())


async def test_profiles_that_are_still_being_read_are_not_ready(world: World) -> None:
    world.views.ready = False
    status, down = await down_parts(world)
    assert (status, set(down)) == (503, {"profiles"})


async def test_without_the_model_the_api_is_degraded_but_serves(world: World) -> None:
    world.embedder.away = True
    response = await world.client.get("/readyz")
    assert (response.status_code, response.json()["status"]) == (200, "degraded")


async def test_metrics_name_routes_and_never_readers(world: World) -> None:
    await world.client.get("/v1/users/secret-reader/candidates")
    text = (await world.client.get("/metrics")).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    routes = {sample.labels["route"] for sample in samples if sample.name == "keenstream_api_seconds_count"}
    assert any(route.startswith("/v1/users/{user_id") for route in routes)
    assert "secret-reader" not in text


async def test_problems_of_routing_have_the_same_form(world: World) -> None:
    assert (await world.client.get("/v2")).json() == {"detail": "Not Found"}
    assert (await world.client.delete("/v1/events")).status_code == 405


async def test_every_route_is_documented_with_its_messages(world: World) -> None:
    document = (await world.client.get("/openapi.json")).json()
    assert set(document["paths"]) == {
        "/v1/events",
        "/v1/outcomes",
        "/v1/users/{user_id}",
        "/v1/users/{user_id}/candidates",
        "/v1/users/{user_id}/queries",
        "/v1/users/{user_id}/profile",
        "/v1/users/{user_id}/fresh",
        "/v1/articles/{article_id}/readers",
        "/v1/search",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    schemas = document["components"]["schemas"]
    assert {"CandidateAnswer", "Candidate", "Event", "EventAnswer", "Problem"} <= set(schemas)
    assert "HTTPValidationError" not in schemas
    candidates = document["paths"]["/v1/users/{user_id}/candidates"]["get"]
    assert candidates["responses"]["200"]["content"]["application/json"]["example"]["candidates"]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "news.example"])
def test_listening_for_others_needs_a_key(host: str) -> None:
    with pytest.raises(UsageError, match="keenstream api-key create"):
        check_exposure(Api(host=host))
    check_exposure(Api(host=host, keys=(key_line("all", SCOPES, KEY),)))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_listening_locally_needs_none(host: str) -> None:
    check_exposure(Api(host=host))


def test_a_port_that_is_taken_is_named() -> None:
    with listen(Api(port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=str(port)):
            listen(Api(port=port))


def documented_api(settings: Api) -> Any:
    """The API over a world with one known reader, for schemathesis."""
    world = World(settings)
    world.know("reader-42")
    world.feed.close()  # a stream of events ends at once, or each call would last an hour
    return schemathesis.openapi.from_asgi("/openapi.json", world.app)


_open_api = documented_api(Api())
_locked_api = documented_api(Api(keys=(key_line("all", SCOPES, KEY),)))
_TOLD_APART = [schemathesis.checks.negative_data_rejection, schemathesis.checks.positive_data_acceptance]
_EXCLUDED = {
    # faults of one event or outcome are told per event, and the time limit depends on the clock: no schema says either
    "/v1/events": _TOLD_APART,
    "/v1/outcomes": _TOLD_APART,
    "/v1/search": [schemathesis.checks.positive_data_acceptance],  # 5.0 is an integer for JSON Schema only
}


@_open_api.parametrize()  # type: ignore[untyped-decorator]  # schemathesis's own decorator
@hypothesis.settings(max_examples=25, deadline=None)
def test_the_api_keeps_to_its_document(case: Any) -> None:
    case.call_and_validate(excluded_checks=_EXCLUDED.get(case.operation.path, []))


@_locked_api.parametrize()  # type: ignore[untyped-decorator]
@hypothesis.settings(max_examples=10, deadline=None)
def test_the_api_with_a_key_keeps_to_its_document(case: Any) -> None:
    # a case may be faulty by its missing key alone, which is given here: what is accepted then says nothing
    case.call_and_validate(headers={"x-api-key": KEY}, excluded_checks=_TOLD_APART)


async def test_the_documented_example_works(world: World) -> None:
    document = (await world.client.get("/openapi.json")).json()
    example = document["paths"]["/v1/events"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert (await world.client.post("/v1/events", json=example)).json()["accepted"] == 1
    assert (await world.client.post("/v1/events", content=body(event()))).status_code == 200
