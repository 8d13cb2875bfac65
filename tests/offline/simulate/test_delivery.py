from collections import Counter, defaultdict
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline.simulate import Delivery, Impression, SimulationSettings, simulate_world
from offline.simulate.world import World
from schemas.codec import EVENTS
from schemas.profile import Signal
from tests.offline.simulate.conftest import SMALL


def times(rows: Sequence[Delivery | Impression]) -> list[int]:
    return [row.delivered_at if isinstance(row, Delivery) else row.shown_at for row in rows]


def played(world: World, **changes: float) -> list[Delivery]:
    rows = simulate_world(msgspec.structs.replace(SMALL, **changes), world)
    return [row for row in rows if isinstance(row, Delivery)]


def test_everything_comes_in_the_order_of_delivery(simulated: list[Delivery | Impression]) -> None:
    assert times(simulated) == sorted(times(simulated))


def test_events_are_valid_records(deliveries: list[Delivery]) -> None:
    for delivery in deliveries:
        assert EVENTS.decode(EVENTS.encode(delivery.event)) == delivery.event


def test_nothing_happens_outside_the_span(deliveries: list[Delivery]) -> None:
    assert all(SMALL.start_ms <= row.event.occurred_at < SMALL.end_ms for row in deliveries)


def test_about_as_many_events_as_expected(deliveries: list[Delivery]) -> None:
    distinct = {row.event.event_id for row in deliveries}
    assert len(distinct) == pytest.approx(SMALL.expected_events, rel=0.3)


def test_duplicates_are_the_same_event_again_and_marked(world: World) -> None:
    rows = played(world, duplicate_share=0.3)
    first = {row.event.event_id: row.event for row in rows if not row.repeat}
    repeats = [row for row in rows if row.repeat]
    assert len(first) == len(rows) - len(repeats)
    assert all(first[row.event.event_id] == row.event for row in repeats)
    assert len(repeats) / len(first) == pytest.approx(0.3, abs=0.05)


def test_without_late_events_and_duplicates_delivery_is_at_once(world: World) -> None:
    rows = played(world, duplicate_share=0.0, late_share=0.0)
    assert all(row.delivered_at == row.event.occurred_at for row in rows)


@pytest.mark.parametrize("late_seconds", [60.0, 3_600.0])
def test_late_events_come_within_the_limit(world: World, late_seconds: float) -> None:
    rows = played(world, late_share=1.0, duplicate_share=0.0, late_seconds=late_seconds)
    delays = [row.delivered_at - row.event.occurred_at for row in rows]
    assert min(delays) > 0
    assert max(delays) <= late_seconds * 1_000


def test_all_late_is_shuffled_within_the_limit(world: World) -> None:
    rows = [row.event.occurred_at for row in played(world, late_share=1.0)]
    assert rows != sorted(rows)
    newest = 0
    for occurred_at in rows:
        newest = max(newest, occurred_at)
        assert newest - occurred_at <= 2 * SMALL.late_seconds * 1_000  # a duplicate may be late twice


def test_noise_is_marked_and_as_common_as_the_setting_says(world: World) -> None:
    rows = played(world, noise_share=0.4, duplicate_share=0.0)
    elsewhere = [row for row in rows if row.event.kind != "click"]
    share = sum(row.origin == "noise" for row in elsewhere) / len(elsewhere)
    assert share == pytest.approx(0.4, abs=0.06)


def test_origins_are_topics_of_the_readers_interests_at_that_time(world: World) -> None:
    topics = {topic.topic_id for topic in world.topics}
    assert {row.origin for row in played(world, noise_share=0.0)} <= topics


def test_every_kind_of_event_occurs(deliveries: list[Delivery]) -> None:
    counts = Counter(row.event.kind for row in deliveries)
    assert min(counts[kind] for kind in ("page", "search", "click")) > 0.1 * len(deliveries)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), gap=st.floats(0, 1), days=st.floats(0.01, 5))
def test_a_seed_repeats_the_whole_stream(world: World, seed: int, gap: float, days: float) -> None:
    chosen = SimulationSettings(seed=seed, gap=gap, days=days, readers=5, events_per_reader=8)
    assert list(simulate_world(chosen, world)) == list(simulate_world(chosen, world))


def test_signals_of_one_reader_have_different_keys(deliveries: list[Delivery]) -> None:
    """(occurred_at, event_id) is the profile's key: only duplicates may share it."""
    keys: defaultdict[tuple[int, str], set[str]] = defaultdict(set)
    for row in deliveries:
        signal = Signal(row.event.occurred_at, row.event.event_id, row.event.text)
        keys[signal.occurred_at, signal.event_id].add(row.event.user_id)
    assert all(len(users) == 1 for users in keys.values())
