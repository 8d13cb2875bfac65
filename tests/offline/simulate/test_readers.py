from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline.simulate import SimulationSettings
from offline.simulate.readers import DayClock, Reader, make_readers
from offline.simulate.settings import DAY_MS
from offline.simulate.world import World

SETTINGS = SimulationSettings(readers=400, events_per_reader=30, days=14)


@pytest.fixture(scope="module")
def readers(world: World) -> list[Reader]:
    return make_readers(SETTINGS, world)


def test_readers_are_numbered(readers: list[Reader]) -> None:
    assert readers[0].user_id == "reader-000001"
    assert len({reader.user_id for reader in readers}) == 400


def test_a_reader_has_two_to_five_interests_at_any_time(readers: list[Reader]) -> None:
    for reader in readers:
        for moment in range(SETTINGS.start_ms, SETTINGS.end_ms, DAY_MS):
            assert 2 <= len(reader.active(moment)) <= 5


def test_an_interest_is_a_topic_through_one_or_two_of_its_entities(readers: list[Reader], world: World) -> None:
    for reader in readers:
        for interest in reader.interests:
            assert 1 <= len(interest.entities) <= 2
            assert interest.entities <= set(world.topics[interest.topic].entities)


def test_interests_drift_as_often_as_the_setting_says(readers: list[Reader]) -> None:
    starts = [interest.from_ms for reader in readers for interest in reader.interests]
    replaced = sum(start > SETTINGS.start_ms for start in starts)
    weeks = (len(starts) - replaced) * SETTINGS.days / 7
    assert replaced / weeks == pytest.approx(SETTINGS.drift_per_week, rel=0.2)


def test_without_drift_interests_stay(world: World) -> None:
    settings = SimulationSettings(readers=50, drift_per_week=0.0)
    for reader in make_readers(settings, world):
        assert {(row.from_ms, row.until_ms) for row in reader.interests} == {(settings.start_ms, settings.end_ms)}


def test_cold_readers_have_one_to_three_events(readers: list[Reader]) -> None:
    cold = [reader.events_left for reader in readers if reader.cold]
    assert {1, 2, 3} == set(cold)
    assert len(cold) / len(readers) == pytest.approx(SETTINGS.cold_share, abs=0.05)


def test_the_mean_activity_is_the_settings(readers: list[Reader]) -> None:
    warm = [reader.events_left for reader in readers if not reader.cold]
    assert sum(warm) / len(warm) == pytest.approx(SETTINGS.events_per_reader, rel=0.12)


def test_habits_and_hours_differ(readers: list[Reader]) -> None:
    assert len({reader.habit for reader in readers}) == 4
    assert all(sum(reader.shares) == pytest.approx(1.0) for reader in readers)
    assert [hours for hours, _ in groupby(sorted(reader.hours for reader in readers))] == [
        "early",
        "evening",
        "night",
        "office",
    ]


@given(
    days=st.floats(0.05, 9.0),
    start_hour=st.integers(0, 23),
    hours=st.sampled_from(["early", "office", "evening", "night"]),
    positions=st.lists(st.floats(0, 1), min_size=2, max_size=2),
)
def test_later_positions_are_later_moments_within_the_span(
    days: float, start_hour: int, hours: str, positions: list[float]
) -> None:
    settings = SimulationSettings(days=days, start_ms=start_hour * 3_600_000)
    clock = DayClock(settings)
    earlier, later = (clock.moment(hours, position * days) for position in sorted(positions))
    assert settings.start_ms <= earlier <= later < settings.end_ms


def test_evening_readers_come_in_the_evening() -> None:
    settings = SimulationSettings(days=1.0, start_ms=5 * 3_600_000)
    clock = DayClock(settings)
    at = [clock.moment("evening", step / 1_000) % DAY_MS // 3_600_000 for step in range(1_000)]
    assert sum(18 <= hour <= 22 for hour in at) > 0.4 * len(at)
