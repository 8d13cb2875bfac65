"""Requests cleaned by verdicts, and by the rules alone while the cleaner is away."""

from collections.abc import Sequence

import pytest

from schemas.clients.breaker import Breaker
from schemas.clients.memory_models import MemoryCleaner, MemoryEmbedder
from schemas.clients.memory_store import MemoryStore
from schemas.config import Interests
from schemas.errors import PermanentError, RetryableError, Unavailable
from schemas.profile import fingerprint
from schemas.queries import QueryRequest
from stream import monitoring
from stream.interests.cleaning import SignalCleaner, VerdictCache
from stream.interests.signals import SignalWriter
from stream.producer import MemoryProducer
from tests.stream.interests.test_writers import NOW, profile, request

SETTINGS = Interests(cleaner_signals=3, cleaner_cache_texts=4, signal_queries=3)
AWAY = Unavailable("unknown model: 'cleaner' is not found")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def cleaner_of(model: MemoryCleaner, clock: Clock | None = None) -> SignalCleaner:
    return SignalCleaner(SETTINGS, model, Breaker(failures=2, reset_seconds=30.0, clock=clock or Clock()), "test")


def asked_for(*texts: str, user: str = "u1") -> QueryRequest:
    reader = profile(*texts, user=user)
    return QueryRequest(user_id=user, profile=reader, profile_fingerprint=fingerprint(reader), requested_at=NOW)


def texts_of(requests: Sequence[QueryRequest]) -> list[list[str]]:
    return [[signal.text for signal in one.profile.search] for one in requests]


def fallbacks() -> float:
    return float(monitoring.CLEANER_FALLBACKS.labels("test")._value.get())


async def test_noise_goes_and_the_request_stays_what_it_was() -> None:
    before = asked_for("roses", "my login", "tulips")
    (after,) = await cleaner_of(MemoryCleaner()).clean([before])
    assert texts_of([after]) == [["roses", "tulips"]]
    assert after.profile_fingerprint == before.profile_fingerprint


async def test_each_text_is_asked_about_once_and_only_the_latest_are() -> None:
    model = MemoryCleaner()
    cleaner = cleaner_of(model)
    await cleaner.clean([asked_for("old", "roses", "my login", "tulips"), asked_for("roses", "inbox", user="u2")])
    assert texts_of(await cleaner.clean([asked_for("roses", "my login")])) == [["roses"]]
    assert model.asked == [("inbox", "my login", "roses", "tulips")]


@pytest.mark.parametrize("failure", [AWAY, PermanentError("cleaner: too large")])
async def test_without_an_answer_the_rules_alone_have_cleaned(failure: RetryableError | PermanentError) -> None:
    before, counted = asked_for("roses", "my login"), fallbacks()
    cleaner = cleaner_of(MemoryCleaner(failures=[failure]))
    assert await cleaner.clean([before]) == [before]
    assert fallbacks() == counted + 1
    assert texts_of(await cleaner.clean([before])) == [["roses"]]  # it is back


async def test_what_is_known_is_used_while_it_is_away() -> None:
    model = MemoryCleaner()
    cleaner = cleaner_of(model)
    await cleaner.clean([asked_for("my login", "roses")])
    model._failures.append(AWAY)
    assert texts_of(await cleaner.clean([asked_for("my login", "inbox")])) == [["inbox"]]


async def test_a_cleaner_that_is_away_is_left_alone_for_a_while() -> None:
    clock, model = Clock(), MemoryCleaner(failures=[AWAY, AWAY])
    cleaner = cleaner_of(model, clock)
    for _ in range(5):
        await cleaner.clean([asked_for("my login", "roses")])
    assert len(model.asked) == 2
    clock.now = 31.0
    assert texts_of(await cleaner.clean([asked_for("my login", "roses")])) == [["roses"]]


async def test_other_weights_judge_anew() -> None:
    model = MemoryCleaner()
    cleaner = cleaner_of(model)
    await cleaner.clean([asked_for("my login", "roses")])
    model._version, model._words = "memory-cleaner-2", frozenset({"roses"})
    assert texts_of(await cleaner.clean([asked_for("my login", "roses")])) == [["roses"]]  # nothing new to ask about
    await cleaner.clean([asked_for("tulips")])  # the answer says that the weights are others
    assert texts_of(await cleaner.clean([asked_for("my login", "roses")])) == [["my login"]]


async def test_no_requests_ask_nothing() -> None:
    model = MemoryCleaner()
    assert await cleaner_of(model).clean([]) == []
    assert model.asked == []


def test_the_cache_is_bounded_and_forgets_what_was_not_asked_for() -> None:
    cache = VerdictCache(2)
    cache.note({"a": True, "b": False}, "1")
    cache.look_up(["a"])
    cache.note({"c": True}, "1")
    assert cache.look_up(["a", "b", "c"]) == {"a": True, "c": True}
    assert len(cache) == 2


async def test_the_stored_signals_are_those_that_were_kept() -> None:
    store = MemoryStore()
    writer = SignalWriter(
        SETTINGS, MemoryEmbedder(), store, MemoryProducer(), lambda: NOW, cleaner=cleaner_of(MemoryCleaner())
    )
    await writer.process([request("roses", "my login", "tulips")])
    rows = await store.user_queries("u1", now_ms=NOW, strong=True)
    assert [row.query for row in rows] == ["tulips", "roses"]
