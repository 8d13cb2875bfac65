from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.event import Event
from schemas.profile import (
    UserProfile,
    decode_profile,
    encode_profile,
    erase_before,
    fingerprint,
    fold_event,
    latest_signals,
    merge_profiles,
    seen_articles,
    signal_count,
)
from tests.schemas.strategies import LIMIT, events, profiles


def fold(history: list[Event], start: UserProfile | None = None) -> UserProfile:
    empty = start or UserProfile("reader")
    return reduce(lambda profile, event: fold_event(profile, event, signals_per_domain=LIMIT), history, empty)


def merge(left: UserProfile, right: UserProfile) -> UserProfile:
    return merge_profiles(left, right, signals_per_domain=LIMIT)


def event(event_id: str, occurred_at: int, text: str = "text", article_id: str | None = None) -> Event:
    return Event(
        event_id=event_id, user_id="reader", kind="click", text=text, occurred_at=occurred_at, article_id=article_id
    )


@given(profiles())
def test_merge_is_idempotent(profile: UserProfile) -> None:
    assert merge(profile, profile) == profile


@given(profiles(), profiles())
def test_merge_is_commutative(left: UserProfile, right: UserProfile) -> None:
    assert encode_profile(merge(left, right)) == encode_profile(merge(right, left))


@given(profiles(), profiles(), profiles())
def test_merge_is_associative(a: UserProfile, b: UserProfile, c: UserProfile) -> None:
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


@given(profiles())
def test_the_empty_profile_is_neutral(profile: UserProfile) -> None:
    assert merge(profile, UserProfile("reader")) == profile


@given(st.lists(events(), max_size=20), st.randoms(use_true_random=False), st.integers(0, 20))
def test_order_and_repetition_cannot_change_the_outcome(history: list[Event], random: object, repeats: int) -> None:
    again = history + history[:repeats]
    random.shuffle(again)  # type: ignore[attr-defined]
    assert encode_profile(fold(again)) == encode_profile(fold(history))


@given(st.lists(events(), max_size=12), st.lists(events(), max_size=12))
def test_folding_a_history_equals_merging_its_parts(first: list[Event], second: list[Event]) -> None:
    assert fold(first + second) == merge(fold(first), fold(second))


@given(profiles(), st.integers(0, 7))
def test_erasure_lets_no_late_event_back(profile: UserProfile, limit: int) -> None:
    erased = erase_before(profile, limit)
    late = [event("late", limit), event("later still", max(0, limit - 1))]
    assert fold(late, erased) == erased
    assert all(signal.occurred_at > limit for _, signal in latest_signals(erased))


@given(profiles())
def test_encoding_round_trips_and_the_fingerprint_follows_it(profile: UserProfile) -> None:
    back = decode_profile(encode_profile(profile))
    assert back == profile
    assert fingerprint(back) == fingerprint(profile)


@given(profiles())
def test_no_domain_grows_beyond_its_limit(profile: UserProfile) -> None:
    assert max(len(profile.page), len(profile.search), len(profile.click)) <= LIMIT
    assert signal_count(profile) <= 3 * LIMIT


def test_an_event_that_changes_nothing_returns_the_same_object() -> None:
    profile = fold([event("a", 5)])
    assert fold_event(profile, event("a", 5), signals_per_domain=LIMIT) is profile


def test_the_oldest_signal_leaves_first() -> None:
    profile = fold([event(str(time), time) for time in (5, 1, 4, 2, 3)])
    assert [signal.occurred_at for signal in profile.click] == [2, 3, 4, 5]


def test_signals_are_told_newest_first_and_once() -> None:
    profile = fold([event("a", 1, "Tax day"), event("b", 2, "tax  DAY"), event("c", 3, "Budget")])
    assert [(kind, signal.event_id) for kind, signal in latest_signals(profile)] == [("click", "c"), ("click", "b")]


def test_seen_articles_are_those_clicked() -> None:
    assert seen_articles(fold([event("a", 1, article_id="n1"), event("b", 2)])) == {"n1"}


def test_two_readers_do_not_merge() -> None:
    with pytest.raises(ValueError, match="two different readers"):
        merge(UserProfile("a"), UserProfile("b"))
