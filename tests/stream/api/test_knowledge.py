"""What the API tells of a reader, and free-text search."""

import asyncio

import pytest

from stream.api.messages import MAX_SEARCH_CHARACTERS
from tests.stream.api.conftest import HOUR, NOW, World


async def test_queries_come_with_their_source_and_model(world: World) -> None:
    await world.write_list("ann", queries=("rain spain",), signals=("cup final",))
    response = await world.client.get("/v1/users/ann/queries")
    assert response.status_code == 200
    first, second = response.json()["queries"]
    assert first == {
        "query": "rain spain",
        "source": "student",
        "model": "student",
        "model_version": "7",
        "prompt_version": "p1",
        "profile_fingerprint": "f",
        "generated_at": NOW,
        "expires_at": NOW + HOUR,
    }
    assert (second["query"], second["source"]) == ("cup final", "signals")


async def test_a_known_reader_may_have_no_queries_yet(world: World) -> None:
    world.know("ann")
    response = await world.client.get("/v1/users/ann/queries")
    assert (response.status_code, response.json()) == (200, {"user_id": "ann", "queries": []})


async def test_a_profile_shows_what_is_kept(world: World) -> None:
    world.know("ann", "a1")
    told = (await world.client.get("/v1/users/ann/profile")).json()
    assert (told["user_id"], told["search"], told["erased_before"]) == ("ann", [], 0)
    assert len(told["fingerprint"]) == 32
    assert told["page"] == [
        {
            "event_id": "page-1",
            "occurred_at": NOW - 5,
            "text": "A page",
            "url": "https://shop.example/1",
            "article_id": "",
            "locale": "en",
        }
    ]
    assert [signal["article_id"] for signal in told["click"]] == ["a1"]


async def test_the_newest_profile_counts_and_a_removed_one_is_gone(world: World) -> None:
    world.know("ann", "a1")
    world.know("ann", "a1", "a2")
    assert len((await world.client.get("/v1/users/ann/profile")).json()["click"]) == 2
    world.remove("ann")
    assert (await world.client.get("/v1/users/ann/profile")).status_code == 404


@pytest.mark.parametrize("what", ["queries", "profile"])
async def test_an_unknown_reader_gets_a_hint(world: World, what: str) -> None:
    response = await world.client.get(f"/v1/users/nobody/{what}")
    assert response.status_code == 404
    assert "POST /v1/events" in response.json()["detail"]


async def test_queries_need_the_store(world: World) -> None:
    world.store.away = True
    response = await world.client.get("/v1/users/ann/queries")
    assert response.status_code == 503
    assert response.headers["retry-after"]


async def test_a_store_that_does_not_answer_holds_no_request_for_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*args: object, **kwargs: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr("stream.api.recommender.READ_SECONDS", 0.05)
    world.store.user_queries = never  # type: ignore[method-assign]
    response = await asyncio.wait_for(world.client.get("/v1/users/ann/queries"), 1)
    assert response.status_code == 503


async def test_search_finds_articles_by_text(world: World) -> None:
    await world.publish(rain="rain floods spain", cup="cup final tonight")
    response = await world.client.post("/v1/search", json={"query": "cup final", "k": 1})
    (found,) = response.json()["articles"]
    assert (found["article_id"], found["title"], found["url"]) == (
        "cup",
        "cup final tonight",
        "https://news.example/cup",
    )


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "truncated"),
        (b"cup final", "malformed"),
        (b'{"k": 5}', "query"),
        (b'{"query": ""}', "query"),
        (b'{"query": "%s"}' % (b"x" * (MAX_SEARCH_CHARACTERS + 1)), "query"),
        (b'{"query": "x", "k": 0}', "k"),
        (b'{"query": "x", "k": 101}', "k"),
        (b'{"query": 5}', "query"),
        (b"\xff", ""),
    ],
)
async def test_a_wrong_search_is_refused_with_what_to_send(world: World, content: bytes, named: str) -> None:
    response = await world.client.post("/v1/search", content=content)
    assert response.status_code == 422
    assert named in response.json()["detail"]
    assert '"query"' in response.json()["detail"]


@pytest.mark.parametrize("part", ["store", "embedder"])
async def test_search_without_a_part_says_how_to_start_it(world: World, part: str) -> None:
    getattr(world, part).away = True
    response = await world.client.post("/v1/search", json={"query": "x"})
    assert response.status_code == 503
    assert "keenstream stack up" in response.json()["detail"]
    assert response.headers["retry-after"]
