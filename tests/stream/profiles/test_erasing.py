"""Erasures in the fold: whatever the order, the batches and the repetitions, nothing of before them is left."""

import asyncio
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import ERASURES, EVENTS, REQUESTS
from schemas.config import Config, Refresh
from schemas.erasure import Erasure
from schemas.errors import Unavailable
from schemas.event import Event
from schemas.names import Header, Topic
from schemas.profile import UserProfile, fold_event
from stream.producer import MemoryProducer, Outgoing
from stream.profiles.folder import ProfileFolder
from stream.profiles.record import ProfileRecord, RefreshState, decode_record
from tests.stream.doubles import MemoryTable, Record

NOW = 1_700_000_000_000
CONFIG = Config(refresh=Refresh(cold_signals=3, threshold=4.0, interval_seconds=30.0, pending_seconds=600.0))


class World:
    def __init__(self) -> None:
        self.table, self.producer = MemoryTable(), MemoryProducer()
        self.folder = ProfileFolder(CONFIG, self.table, self.producer, lambda: NOW)

    def row(self, user: str = "u1") -> ProfileRecord:
        return decode_record(self.table.rows[user.encode()])

    def requests(self) -> list[Outgoing]:
        return [message for message in self.producer.sent if message.topic == Topic.QUERY_REQUESTS]

    def letters(self) -> list[Outgoing]:
        return [message for message in self.producer.sent if message.topic == Topic.DEAD_LETTERS]


def event(at: int, user: str = "u1", number: int | None = None) -> Event:
    return Event(event_id=f"e{at if number is None else number}", user_id=user, kind="search",
                 text=f"words {number or at}", occurred_at=NOW - 100_000 + at)  # fmt: skip


def erasure(at: int, user: str = "u1") -> Erasure:
    return Erasure(user_id=user, erased_before=NOW - 100_000 + at, requested_at=NOW)


def record(source: Event | Erasure, offset: int = 0) -> Record:
    topic = Topic.USER_EVENTS if isinstance(source, Event) else Topic.ERASURES
    value = EVENTS.encode(source) if isinstance(source, Event) else ERASURES.encode(source)
    return Record(topic=topic, key=source.user_id.encode(), value=value, offset=offset, timestamp_ms=NOW)


@st.composite
def histories(draw: st.DrawFn) -> list[Event | Erasure]:
    times = st.integers(0, 60)
    users = st.sampled_from(["u1", "u2"])
    events = draw(st.lists(st.builds(event, times, users), min_size=1, max_size=25))
    erasures = draw(st.lists(st.builds(erasure, times, users), min_size=1, max_size=4))
    return [*events, *erasures]


def offline(history: Sequence[Event | Erasure]) -> dict[str, UserProfile]:
    """Only what no erasure covers, folded in the order of events, then closed."""
    limits: dict[str, int] = {}
    for row in history:
        if isinstance(row, Erasure):
            limits[row.user_id] = max(row.erased_before, limits.get(row.user_id, 0))
    profiles = {user: UserProfile(user, erased_before=limit) for user, limit in limits.items()}
    for row in history:
        if isinstance(row, Event):
            before = profiles.get(row.user_id) or UserProfile(row.user_id)
            profiles[row.user_id] = fold_event(before, row, signals_per_domain=50)
    return profiles


@settings(deadline=None, max_examples=80)
@given(histories(), st.randoms(use_true_random=False), st.integers(1, 6))
def test_any_order_batches_and_repetitions_give_the_offline_fold(
    history: list[Event | Erasure], order: random.Random, size: int
) -> None:
    delivered = [*history, *order.sample(history, len(history) // 2)]  # some twice
    order.shuffle(delivered)
    world = World()
    for first in range(0, len(delivered), size):
        asyncio.run(world.folder.process([record(row) for row in delivered[first : first + size]]))
    rows = {user.decode(): decode_record(row).profile for user, row in world.table.rows.items()}
    expected = {user: row for user, row in offline(history).items() if user in rows or row.erased_before}
    assert rows == expected


@settings(deadline=None, max_examples=60)
@given(histories(), st.randoms(use_true_random=False))
def test_after_the_last_tombstone_only_what_is_left_is_asked_for(
    history: list[Event | Erasure], order: random.Random
) -> None:
    order.shuffle(history)
    world = World()
    for row in history:
        asyncio.run(world.folder.process([record(row)]))
    for user, profile in offline(history).items():
        if not profile.erased_before:
            continue
        ours = [message.value for message in world.requests() if message.key == user.encode()]
        after = ours[len(ours) - ours[::-1].index(None) :]
        kept = {signal for value in after if value for signal in REQUESTS.decode(value).profile.search}
        assert kept <= set(profile.search)


async def test_an_erased_row_stays_empty_and_closed_and_nothing_waits() -> None:
    world = World()
    await world.folder.process([record(event(at)) for at in range(5)])
    await world.folder.process([record(erasure(50))])
    assert world.row() == ProfileRecord(UserProfile("u1", erased_before=NOW - 99_950), RefreshState())
    await world.folder.process([record(event(3)), record(event(40, number=99))])  # late ones
    assert world.row().profile.search == ()


async def test_the_tombstone_says_how_much_was_found_and_nothing_of_what() -> None:
    world = World()
    await world.folder.process([record(event(at)) for at in range(5)])
    await world.folder.process([record(erasure(50))])
    last = world.requests()[-1]
    assert (last.key, last.value) == (b"u1", None)
    assert dict(last.headers) == {Header.ERASED_BEFORE: str(NOW - 99_950).encode(), Header.SIGNALS_FOUND: b"5"}


async def test_what_is_left_of_a_reader_is_asked_for_behind_the_tombstone() -> None:
    world = World()
    await world.folder.process([record(event(at)) for at in range(5)])
    await world.folder.process([record(erasure(2))])
    tombstone, request = world.requests()[-2:]
    assert tombstone.value is None
    assert request.value
    assert [signal.event_id for signal in REQUESTS.decode(request.value).profile.search] == ["e3", "e4"]
    assert world.row().refresh == RefreshState(requested_at=NOW)


async def test_a_reader_who_comes_back_is_a_new_one() -> None:
    world = World()
    await world.folder.process([record(event(at)) for at in range(5)])
    await world.folder.process([record(erasure(50)), record(event(60))])
    assert [signal.event_id for signal in world.row().profile.search] == ["e60"]


async def test_an_unknown_reader_is_closed_too_and_nothing_was_found() -> None:
    world = World()
    await world.folder.process([record(erasure(50))])
    assert dict(world.requests()[0].headers)[Header.SIGNALS_FOUND] == b"0"
    await world.folder.process([record(event(40))])
    assert world.row().profile == UserProfile("u1", erased_before=NOW - 99_950)


async def test_an_erasure_that_comes_twice_changes_nothing() -> None:
    world = World()
    await world.folder.process([record(event(60)), record(erasure(50))])
    before = dict(world.table.rows)
    await world.folder.process([record(erasure(50))])
    await world.folder.process([record(erasure(20))])  # nor does an earlier one
    assert world.row().profile == decode_record(before[b"u1"]).profile


async def test_a_crash_before_the_row_is_stored_sends_the_tombstone_again() -> None:
    world = World()
    await world.folder.process([record(event(1))])
    world.producer.failures = 1
    with pytest.raises(Unavailable):
        await world.folder.process([record(erasure(50))])
    assert world.row().profile.search
    await world.folder.process([record(erasure(50))])
    assert not world.row().profile.search
    assert world.requests()[-1].value is None


@pytest.mark.parametrize(
    "bad",
    [
        Record(topic=Topic.ERASURES, key=b"u2", value=ERASURES.encode(erasure(5))),
        Record(topic=Topic.ERASURES, key=b"u1", value=b"{"),
        Record(topic=Topic.ERASURES, key=b"u1", value=ERASURES.encode(erasure(10**9))),
    ],
)
async def test_a_wish_that_cannot_be_right_is_a_dead_letter(bad: Record) -> None:
    world = World()
    await world.folder.process([bad, record(event(1))])
    assert len(world.letters()) == 1
    assert len(world.row().profile.search) == 1


async def test_a_withdrawn_wish_asks_for_nothing() -> None:
    world = World()
    await world.folder.process([Record(topic=Topic.ERASURES, key=b"u1", value=None)])
    assert not world.table.rows
    assert not world.producer.sent


@pytest.mark.parametrize(
    "value",
    [
        EVENTS.encode(Event(event_id="1", user_id="u1", kind="page", text="x y", occurred_at=NOW, consent=False)),
        EVENTS.encode(
            Event(event_id="1", user_id="u1", kind="page", text="x y", occurred_at=NOW + 10**7, consent=False)
        ),
        b'{"event_id": "1", "user_id": "u1", "kind": "purchase", "text": "secret", "consent": false}',
        b'{"user_id": "u1", "consent": false, "text": "cut off',
    ],
)
@pytest.mark.parametrize("key", [b"u1", b"somebody else", None])
async def test_an_event_without_consent_is_stored_nowhere_whatever_else_is_wrong_with_it(
    value: bytes, key: bytes | None
) -> None:
    world = World()
    await world.folder.process([Record(key=key, value=value), record(event(1, user="u2"))])
    assert set(world.table.rows) == {b"u2"}
    assert not world.letters()


async def test_a_later_event_without_consent_erases_nothing() -> None:
    world = World()
    await world.folder.process([record(event(1))])
    refused = Event(event_id="2", user_id="u1", kind="page", text="x y", occurred_at=NOW, consent=False)
    await world.folder.process([record(refused)])
    assert len(world.row().profile.search) == 1


async def test_a_broken_event_of_before_an_erasure_comes_back_by_no_letter() -> None:
    world = World()
    wish = record(erasure(50))

    def broken(offset: int, at: int, key: bytes = b"u1") -> Record:
        return Record(topic=Topic.USER_EVENTS, key=key, value=b"{", offset=offset, timestamp_ms=NOW - 100_000 + at)

    await world.folder.process([wish, broken(1, 50), broken(2, 51)])
    await world.folder.process([broken(3, 49), broken(4, 49, b"u2")])
    assert [letter.key for letter in world.letters()] == [b"user-events:0:2", b"user-events:0:4"]
