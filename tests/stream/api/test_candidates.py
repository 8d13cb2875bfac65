from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest

from schemas.config import Api
from schemas.errors import Unavailable
from stream.api.query_cache import READ_AHEAD, SETTLED_SECONDS, VISIBLE_SECONDS
from stream.api.recommender import REST_SECONDS
from tests.stream.api.conftest import HOUR, NOW, World


async def ask(world: World, user_id: str = "ann", **params: Any) -> httpx.Response:
    return await world.client.get(f"/v1/users/{user_id}/candidates", params=params)


async def ids(world: World, user_id: str = "ann", **params: Any) -> list[str]:
    return [found["article_id"] for found in (await ask(world, user_id, **params)).json()["candidates"]]


@pytest.fixture
async def news(world: World) -> World:
    await world.publish(
        rain="rain floods spain", sun="sun over spain", goal="late goal wins cup", cup="cup final tonight"
    )
    return world


async def test_a_reader_gets_articles_with_the_query_behind_each(news: World) -> None:
    await news.write_list("ann", queries=("rain spain",), generated_at=NOW - 12_500)
    response = await ask(news, k=2)
    assert response.status_code == 200
    told = response.json()
    assert (told["user_id"], told["source"], told["stale"], told["list_age_seconds"]) == ("ann", "student", False, 12.5)
    best = told["candidates"][0]
    assert [found["article_id"] for found in told["candidates"]] == ["rain", "sun"]
    assert (best["query"], best["source"], best["title"]) == ("rain spain", "student", "rain floods spain")
    assert (best["url"], best["published_at"]) == ("https://news.example/rain", NOW)
    assert 0 < best["similarity"] <= 1


async def test_one_search_serves_all_queries(news: World) -> None:
    await news.write_list("ann", queries=("rain", "cup", "goal"), signals=("sun", "spain"))
    await ask(news)
    news.store.reads = 0
    await ask(news)
    assert news.store.reads == 1


async def test_signals_alone_are_marked_as_such(news: World) -> None:
    await news.write_list("ann", signals=("cup final",))
    assert (await ask(news)).json()["source"] == "signals"


class TestWeights:
    """They come from the settings."""

    @pytest.fixture(params=[("student_weight", "rain"), ("signal_weight", "cup")], ids=lambda param: param[0])
    def heavier(self, request: pytest.FixtureRequest) -> tuple[str, str]:
        return request.param  # type: ignore[no-any-return]

    @pytest.fixture
    def settings(self, heavier: tuple[str, str]) -> Api:
        return msgspec.structs.replace(Api(), **{heavier[0]: 2.0})

    async def test_what_weighs_more_comes_first(self, news: World, heavier: tuple[str, str]) -> None:
        await news.write_list("ann", queries=("rain floods",), signals=("cup final",))
        assert (await ids(news, k=4))[0] == heavier[1]


async def test_what_the_reader_clicked_and_what_is_excluded_stays_out(news: World) -> None:
    await news.write_list("ann", signals=("rain spain",))
    news.know("ann", "rain")
    assert set(await ids(news)) == {"sun", "goal", "cup"}
    assert set(await ids(news, exclude=["sun", "goal"])) == {"cup"}
    assert set(await ids(news, exclude="sun,goal")) == {"cup"}


async def test_a_known_reader_without_queries_gets_the_newest_articles(news: World) -> None:
    news.know("ann", "sun")
    told = (await ask(news, k=2)).json()
    assert (told["source"], told["list_age_seconds"]) == ("recent", None)
    assert [found["article_id"] for found in told["candidates"]] == ["rain", "goal"]


async def test_an_unknown_reader_is_not_found_and_told_what_to_do(news: World) -> None:
    response = await ask(news, "nobody")
    assert response.status_code == 404
    assert "POST /v1/events" in response.json()["detail"]


async def test_before_the_profiles_are_read_an_unknown_reader_is_asked_to_wait(news: World) -> None:
    news.views.ready = False
    response = await ask(news, "nobody")
    assert response.status_code == 503
    assert response.headers["retry-after"]


@pytest.mark.parametrize("k", [0, -1, 101, "many", ""])
async def test_a_wrong_count_is_told_what_is_allowed(news: World, k: object) -> None:
    response = await ask(news, k=k)
    assert response.status_code == 422
    assert response.json()["detail"].startswith("k: ")
    if isinstance(k, int):
        assert ("1" if k < 1 else "100") in response.json()["detail"]


@pytest.mark.parametrize("user_id", ["a%0Ab", "x" * 129])
async def test_a_reader_id_that_cannot_be_is_refused(news: World, user_id: str) -> None:
    assert (await ask(news, user_id)).status_code in (404, 422)


@pytest.mark.parametrize("user_id", ["o'neill", 'say "hi"', "a/b", "a\\b", "日本 😀", "a#1", "50%"])
async def test_any_reader_id_can_be_asked_for(news: World, user_id: str) -> None:
    await news.write_list(user_id, signals=("cup final",))
    response = await ask(news, quote(user_id, safe=""))
    assert response.status_code == 200
    assert response.json()["user_id"] == user_id


async def test_expired_queries_are_not_used(news: World) -> None:
    await news.write_list("ann", signals=("cup final",))
    await ask(news)
    news.now_ms = NOW + HOUR
    assert (await ask(news)).status_code == 404


class TestCache:
    async def test_vectors_are_read_once(self, news: World) -> None:
        await news.write_list("ann", signals=("cup final",))
        for _ in range(3):
            await ask(news)
        assert news.store.reads == 1 + 1 + 3  # the rows, the newest articles, three searches

    async def test_a_new_list_takes_effect_when_it_is_seen(self, news: World) -> None:
        await news.write_list("ann", signals=("cup final",))
        assert (await ids(news, k=1)) == ["cup"]
        news.log_list(await news.write_list("ann", signals=("rain floods",), generated_at=NOW + 1))
        assert (await ids(news, k=1)) == ["rain"]

    async def test_rows_older_than_the_list_that_was_seen_are_not_kept(self, news: World) -> None:
        written = await news.write_list("ann", signals=("cup final",), generated_at=NOW)
        # the list is logged, the store still shows the rows of before
        news.log_list(msgspec.structs.replace(written, generated_at=NOW + 9))
        assert (await ids(news, k=1)) == ["cup"]
        await news.write_list("ann", signals=("rain floods",), generated_at=NOW + 9)  # now it shows
        assert (await ids(news, k=1)) == ["rain"]

    async def test_after_a_while_the_store_is_believed(self, news: World) -> None:
        written = await news.write_list("ann", signals=("cup final",))
        news.log_list(msgspec.structs.replace(written, generated_at=NOW + 9))
        news.seconds += SETTLED_SECONDS + 0.1
        for _ in range(2):
            await ask(news)
        assert news.store.reads == 1 + 1 + 2

    async def test_a_new_list_is_read_before_anyone_asks(self, news: World) -> None:
        for user_id in ("ann", "bob"):
            news.log_list(await news.write_list(user_id, signals=("cup final",)))
        await news.cache.read_some(NOW)
        assert news.store.reads == 0  # too early: the store may not show the rows yet
        news.seconds += VISIBLE_SECONDS
        await news.cache.read_some(NOW)
        assert news.store.reads == 1
        await ask(news, "ann")
        await ask(news, "bob")
        assert news.store.reads == 1 + 1 + 2

    async def test_reading_ahead_goes_in_steps(self, news: World) -> None:
        for number in range(READ_AHEAD + 1):
            news.log_list(await news.write_list(f"reader-{number}", signals=("cup final",)))
        news.seconds += VISIBLE_SECONDS
        for _ in range(3):
            await news.cache.read_some(NOW)
        assert news.store.reads == 2

    async def test_reading_ahead_goes_on_after_the_store_was_away(self, news: World) -> None:
        news.log_list(await news.write_list("ann", signals=("cup final",)))
        news.seconds += VISIBLE_SECONDS
        news.store.away = True
        with pytest.raises(Unavailable):
            await news.cache.read_some(NOW)
        news.store.away = False
        await news.cache.read_some(NOW)
        assert news.cache.cached("ann", NOW)


class TestSmallCache:
    @pytest.fixture
    def settings(self) -> Api:
        return Api(vector_cache_readers=2)

    async def test_only_so_many_readers_are_kept(self, news: World) -> None:
        for user_id in ("ann", "bob", "cid"):
            await news.write_list(user_id, signals=("cup final",))
            await ask(news, user_id)
        news.store.reads = 0
        await ask(news, "ann")
        assert news.store.reads == 2
        await ask(news, "ann")
        assert news.store.reads == 3

    async def test_a_removed_reader_is_forgotten(self, news: World) -> None:
        await news.write_list("ann", signals=("cup final",))
        news.know("ann")
        await ask(news)
        await news.store.delete_user("ann")
        news.remove("ann")
        assert (await ask(news)).status_code == 404


class TestWhileTheStoreIsAway:
    async def test_the_last_answer_stands_in(self, news: World) -> None:
        await news.write_list("ann", signals=("cup final", "rain"), generated_at=NOW - 1_000)
        fresh = (await ask(news, k=3)).json()
        news.store.away = True
        news.seconds, news.now_ms = 10, NOW + 10_000
        told = (await ask(news, k=2)).json()
        assert told["stale"] is True
        assert told["candidates"] == fresh["candidates"][:2]
        assert told["list_age_seconds"] == 11

    async def test_what_is_excluded_stays_out_of_it(self, news: World) -> None:
        await news.write_list("ann", signals=("cup final",))
        first = await ids(news)
        news.store.away = True
        assert await ids(news, exclude=first[0]) == first[1:]

    async def test_others_get_the_newest_articles_as_last_read(self, news: World) -> None:
        news.know("ann")
        await ask(news)
        news.store.away = True
        told = (await ask(news, "bob", k=1)).json()
        assert (told["source"], told["stale"], told["candidates"][0]["article_id"]) == ("recent", True, "rain")

    async def test_with_nothing_to_stand_in_it_says_when_to_come_back(self, news: World) -> None:
        news.store.away = True
        response = await ask(news)
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert "keenstream stack up" in response.json()["detail"]

    async def test_the_store_rests_after_a_failure_and_is_asked_again(self, news: World) -> None:
        await news.write_list("ann", signals=("cup final",))
        news.store.away = True
        for _ in range(5):
            await ask(news)
        assert news.store.reads == 1
        news.store.away = False
        news.seconds += REST_SECONDS + 0.1
        assert (await ask(news)).json()["stale"] is False
