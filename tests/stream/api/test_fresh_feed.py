import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import Matches
from schemas.names import Topic
from stream.api.fresh_feed import FreshFeed, News, Place, place_of
from tests.stream.doubles import Record


def record(user_id: str, offset: int, *, partition: int = 0, value: bytes | None = b"{}") -> Record:
    return Record(topic=Topic.FRESH_MATCHES, partition=partition, offset=offset, key=user_id.encode(), value=value)


def feed(**settings: float) -> FreshFeed:
    return FreshFeed(Matches(**settings))  # type: ignore[arg-type]


def offsets(news: News) -> list[int]:
    return [held.place.offset for held in news.matches]


@given(st.integers(0, 2**31), st.integers(0, 2**62))
def test_a_place_is_read_back(partition: int, offset: int) -> None:
    place = Place(partition, offset)
    assert place_of(str(place)) == place


@given(st.text(max_size=60))
def test_whatever_a_client_sends_as_a_place_is_taken_or_left(text: str) -> None:
    place = place_of(text)
    assert place is None or (place.partition >= 0 and place.offset >= 0)


@pytest.mark.parametrize("text", ["", "-", "1-", "-1", "1--1", "1-2-3", "²-1", "1 -2", "1-" + "9" * 60])
def test_what_is_no_place_is_none(text: str) -> None:
    assert place_of(text) is None


@given(st.lists(st.sampled_from(["ann", "bob", "cid"]), max_size=60), st.integers(-1, 60), st.integers(1, 5))
def test_a_cursor_gives_the_latest_matches_after_it_and_says_when_older_ones_are_gone(
    users: list[str], after: int, length: int
) -> None:
    held = feed(held_per_reader=length)
    held.apply([record(user, offset) for offset, user in enumerate(users)])
    held.apply([record(user, offset) for offset, user in enumerate(users)])  # read again
    wanted = [offset for offset, user in enumerate(users) if user == "ann" and offset > after]
    found = held.since("ann", Place(0, after))
    assert offsets(found) == wanted[-length:]
    assert found.missed == (len(wanted) > length)


@given(st.lists(st.integers(0, 9), max_size=80), st.integers(3, 20))
def test_what_is_held_is_bounded_and_the_reader_told_last_is_kept(users: list[int], most: int) -> None:
    held = feed(held_matches=most, held_per_reader=3)
    for offset, user in enumerate(users):
        held.apply([record(f"reader-{user}", offset)])
        total = sum(len(held.since(f"reader-{n}", Place(9, 0)).matches) for n in range(10))
        assert total <= most
        assert offsets(held.since(f"reader-{user}", Place(0, -1)))[-1] == offset


def test_a_cursor_of_another_partition_gives_what_is_held() -> None:
    held = feed()
    held.apply([record("ann", 5, partition=2), record("ann", 6, partition=2)])
    assert offsets(held.since("ann", Place(1, 99))) == [5, 6]
    assert offsets(held.since("ann", held.latest("ann"))) == []
    assert offsets(held.since("nobody", held.latest("nobody"))) == []


def test_a_forgotten_reader_has_nothing_and_tombstones_are_passed_over() -> None:
    held = feed()
    held.apply([record("ann", 1), record("bob", 2), record("bob", 3, value=None)])
    held.forget("ann")
    held.forget("nobody")
    assert offsets(held.since("ann", Place(0, -1))) == []
    assert offsets(held.since("bob", Place(0, -1))) == [2]


async def test_news_come_as_they_are_read_with_a_heartbeat_between_them() -> None:
    held = feed(heartbeat_seconds=0.01)
    held.apply([record("ann", 1), record("bob", 2)])
    news = held.news("ann", Place(0, 0), seconds=60)
    assert offsets(await anext(news)) == [1]
    assert await anext(news) == News()
    waiting = asyncio.ensure_future(anext(news))
    held.apply([record("ann", 3), record("ann", 4)])
    while not offsets(found := await waiting):
        waiting = asyncio.ensure_future(anext(news))
    assert offsets(found) == [3, 4]
    await news.aclose()


async def test_open_streams_are_counted_and_close_ends_them() -> None:
    held = feed(max_streams=2, heartbeat_seconds=60)
    streams = [held.news("ann", Place(0, -1), seconds=60) for _ in range(2)]
    waiting = [asyncio.ensure_future(anext(stream, None)) for stream in streams]
    await asyncio.sleep(0)
    assert held.is_full
    held.close()
    assert await asyncio.gather(*waiting) == [None, None]
    assert not held.is_full
    assert [found async for found in held.news("ann", Place(0, -1), seconds=60)] == []


async def test_a_stream_ends_after_its_time() -> None:
    held = feed(heartbeat_seconds=0.01)
    assert all([found == News() async for found in held.news("ann", Place(0, -1), seconds=0.05)])
