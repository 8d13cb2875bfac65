"""DELETE /v1/users/{id} over a service that answers as told; the service itself is tried on real parts elsewhere."""

import pytest

from schemas.config import Api
from schemas.erasure import StoreState
from schemas.names import Topic
from schemas.profile import Signal, UserProfile
from stream.profiles.record import ProfileRecord, encode_record
from tests.stream.api.conftest import NOW, World
from tests.stream.doubles import Record


@pytest.mark.parametrize(
    ("states", "status"),
    [
        ({"profile": "clean", "queries": "clean", "archive": "clean"}, 200),
        ({"profile": "clean", "queries": "clean", "archive": "under way"}, 200),
        ({"profile": "clean", "queries": "under way", "archive": "clean"}, 202),
        ({"profile": "under way", "queries": "clean"}, 202),
        ({"profile": "clean", "queries": "left"}, 202),
    ],
)
async def test_the_receipt_comes_with_the_state_of_what_serves_readers(
    world: World, states: dict[str, StoreState], status: int
) -> None:
    world.eraser.states = states
    response = await world.client.delete("/v1/users/ann")
    assert response.status_code == status
    answer = response.json()
    assert {row["store"]: row["state"] for row in answer["stores"]} == states
    assert (answer["user_id"], answer["version"]) == ("ann", 1)
    assert 0 < world.eraser.waited < Api().request_seconds


async def test_any_id_can_be_erased_and_a_broken_one_is_refused(world: World) -> None:
    assert (await world.client.delete("/v1/users/a/b%20c")).status_code == 200
    assert world.eraser.asked == "a/b c"
    assert (await world.client.delete("/v1/users/a%01b")).status_code == 422


@pytest.mark.parametrize("part", ["profile", "queries", "candidates"])
async def test_a_part_of_a_reader_is_not_taken_for_a_reader(world: World, part: str) -> None:
    assert (await world.client.delete(f"/v1/users/ann/{part}")).status_code == 405
    assert not world.eraser.asked


async def test_without_kafka_nothing_is_called_erased(world: World) -> None:
    world.eraser.states = {}
    response = await world.client.delete("/v1/users/ann")
    assert response.status_code == 503
    assert "keenstream stack up" in response.json()["detail"]


async def test_of_an_erased_reader_nothing_is_known_and_nothing_is_served(world: World) -> None:
    await world.publish(rain="Rain in Spain")
    world.know("ann", "rain")
    world.log_list(await world.write_list("ann", queries=("rain in spain",)))
    assert (await world.client.get("/v1/users/ann/candidates")).status_code == 200
    await world.store.delete_user("ann")
    row = encode_record(ProfileRecord(UserProfile("ann", erased_before=NOW)))
    world.views.apply([Record(topic=Topic.PROFILES_CHANGELOG, key=b"ann", value=row)])
    world.views.apply([Record(topic=Topic.QUERY_LISTS, key=b"ann", value=None)])
    for what in ("profile", "queries", "candidates"):
        assert (await world.client.get(f"/v1/users/ann/{what}")).status_code == 404
    world.store.away = True  # what was answered last is not remembered either
    world.seconds += 10
    told = (await world.client.get("/v1/users/ann/candidates")).json()
    assert (told["source"], told["stale"]) == ("recent", True)  # as of a reader never seen


async def test_rows_that_the_store_still_shows_after_an_erasure_are_not_kept(world: World) -> None:
    world.log_list(await world.write_list("ann", queries=("rain in spain",)))
    world.views.apply([Record(topic=Topic.QUERY_LISTS, key=b"ann", value=None)])
    assert await world.cache.rows("ann", NOW)  # the store lags behind
    assert not world.cache.cached("ann", NOW)


async def test_a_text_that_looks_like_an_empty_profile_erases_nobody(world: World) -> None:
    profile = UserProfile("bob", page=(Signal(NOW, "e1", "a text with ,[],[],[], in it"),))
    row = encode_record(ProfileRecord(profile))
    assert b",[],[],[]," in row
    world.views.apply([Record(topic=Topic.PROFILES_CHANGELOG, key=b"bob", value=row)])
    assert world.views.profile("bob") == profile
