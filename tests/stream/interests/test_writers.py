from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from schemas.clients.breaker import Breaker, GuardedStudent
from schemas.clients.memory_models import MemoryEmbedder
from schemas.clients.memory_store import MemoryStore
from schemas.clients.models import Answer, Completion
from schemas.clients.vector_store import SIGNAL_SLOTS, SLOTS, STUDENT_SLOTS, UserQuery
from schemas.codec import LISTS, REQUESTS
from schemas.config import Interests
from schemas.errors import Overloaded, PermanentError, RetryableError, Unavailable
from schemas.event import Event
from schemas.names import Header, Topic
from schemas.profile import UserProfile, fingerprint, fold_event
from schemas.prompt import BARE, EXAMPLES, render_prompt
from schemas.queries import QueryList, QueryRequest
from stream.dead_letters import read_dead_letter
from stream.interests import lists, signals
from stream.interests.lists import ListWriter
from stream.interests.signals import SignalWriter
from stream.producer import MemoryProducer
from tests.stream.doubles import Record

NOW = 1_700_000_000_000
SETTINGS = Interests(max_queries=5, signal_queries=3, batch_records=2)


class ScriptedStudent:
    """Answers each call by the next of the script, the last one for ever. Keeps what it was asked."""

    def __init__(self, *script: str | Exception) -> None:
        self.script = list(script)
        self.prompt_version: str = EXAMPLES
        self.calls: list[tuple[Sequence[str], int]] = []

    async def write(self, prompts: Sequence[str], *, samples: int = 1, seed: int = 0) -> list[Answer]:
        self.calls.append((prompts, seed))
        said = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return [self._answer(said) for _ in prompts]

    def _answer(self, said: str | Exception) -> Answer:
        if isinstance(said, PermanentError | RetryableError):
            return said
        return Completion(texts=(str(said),), model_version="m-1", prompt_version=self.prompt_version)

    async def close(self) -> None:
        pass


class World:
    def __init__(self, *script: str | Exception) -> None:
        self.now = NOW
        self.store, self.producer = MemoryStore(), MemoryProducer()
        self.student = ScriptedStudent(*(script or ("heat pump prices; gas boiler ban",)))
        guarded = GuardedStudent(self.student, Breaker(failures=3, reset_seconds=0.01))
        parts = (MemoryEmbedder(), self.store, self.producer, self.clock)
        self.lists = ListWriter(SETTINGS, guarded, *parts, EXAMPLES)
        self.signals = SignalWriter(SETTINGS, *parts)

    def clock(self) -> int:
        return self.now

    async def rows(self, user: str = "u1") -> tuple[UserQuery, ...]:
        return await self.store.user_queries(user, now_ms=self.now, strong=True)

    def logged(self) -> list[QueryList]:
        return [LISTS.decode(message.value) for message in self.producer.sent if message.topic == Topic.QUERY_LISTS]


def profile(*texts: str, user: str = "u1") -> UserProfile:
    folded = UserProfile(user)
    for at, text in enumerate(texts, start=1):
        event = Event(event_id=str(at), user_id=user, kind="search", text=text, occurred_at=at)
        folded = fold_event(folded, event, signals_per_domain=50)
    return folded


def request(*texts: str, user: str = "u1", offset: int = 0) -> Record:
    asked = profile(*(texts or ("heat pump noise",)), user=user)
    query_request = QueryRequest(
        user_id=user, profile=asked, profile_fingerprint=fingerprint(asked), requested_at=NOW, accepted_at=NOW - 500
    )
    value = REQUESTS.encode(query_request)
    return Record(topic=Topic.QUERY_REQUESTS, key=user.encode(), value=value, offset=offset)


async def test_the_students_list_is_stored_in_its_slots_and_logged() -> None:
    world = World()
    await world.lists.process([request()])
    rows = await world.rows()
    assert [(row.slot, row.query, row.source) for row in rows] == [
        (0, "heat pump prices", "student"),
        (1, "gas boiler ban", "student"),
    ]
    (row,) = world.logged()
    assert (row.source, row.queries, row.model_version) == ("student", ("heat pump prices", "gas boiler ban"), "m-1")
    assert row.expires_at - row.generated_at == SETTINGS.list_ttl_seconds * 1000


async def test_the_prompt_is_the_rendered_profile() -> None:
    world = World()
    await world.lists.process([request("roses", "tulips")])
    assert world.student.calls == [([render_prompt(profile("roses", "tulips"), EXAMPLES)], 0)]


async def test_a_promoted_model_is_asked_by_the_prompt_that_it_was_trained_on() -> None:
    world = World()
    await world.lists.process([request("roses")])
    world.student.prompt_version = BARE  # served from now on
    await world.lists.process([request("tulips")])
    await world.lists.process([request("lilies")])
    asked = [prompts[0] for prompts, _ in world.student.calls]
    assert asked == [
        render_prompt(profile("roses"), EXAMPLES),
        render_prompt(profile("tulips"), EXAMPLES),
        render_prompt(profile("tulips"), BARE),
        render_prompt(profile("lilies"), BARE),
    ]
    assert [row.prompt_version for row in world.logged()] == [EXAMPLES, BARE, BARE]


async def test_a_model_of_an_unknown_prompt_is_refused_and_its_request_kept() -> None:
    world = World()
    world.student.prompt_version = "bare-9"
    with pytest.raises(Unavailable, match="trained on the prompt 'bare-9'"):
        await world.lists.process([request("roses")])
    assert world.logged() == []
    world.student.prompt_version = EXAMPLES
    await world.lists.process([request("roses")])
    assert len(world.logged()) == 1


async def test_signals_are_stored_beside_the_list_newest_first() -> None:
    world = World()
    await world.lists.process([request()])
    await world.signals.process([request("one thing", "two things", "three birds", "four winds")])
    rows = await world.rows()
    assert [row.query for row in rows if row.slot in SIGNAL_SLOTS] == ["four winds", "three birds", "two things"]
    assert [row.query for row in rows if row.slot in STUDENT_SLOTS] == ["heat pump prices", "gas boiler ban"]


async def test_old_slots_are_removed() -> None:
    world = World("a b; c d; e f", "g h")
    await world.lists.process([request("first")])
    await world.lists.process([request("second")])
    assert [row.query for row in await world.rows()] == ["g h"]


async def test_the_newest_request_of_a_reader_is_answered_once() -> None:
    world = World()
    await world.lists.process([request("old"), request("new"), request("other", user="u2")])
    assert [len(prompts) for prompts, _ in world.student.calls] == [2]
    assert render_prompt(profile("new"), EXAMPLES) in world.student.calls[0][0]


async def test_an_unchanged_profile_is_not_asked_for_again() -> None:
    world = World()
    await world.lists.process([request()])
    await world.lists.process([request(offset=1)])
    assert len(world.student.calls) == 1


async def test_an_unusable_answer_is_sampled_once_more() -> None:
    world = World("https://x.example", "heat pump prices")
    await world.lists.process([request()])
    (_, greedy), (_, seed) = world.student.calls
    assert greedy == 0
    assert seed != 0
    assert [row.source for row in world.logged()] == ["student"]


@pytest.mark.parametrize("answer", ["", "https://x.example", PermanentError("too long")])
async def test_after_that_the_readers_signals_stand_in_and_say_so(answer: str | Exception) -> None:
    world = World("a b", answer, answer)
    await world.lists.process([request("first")])
    await world.lists.process([request("heat pump noise", "roses")])
    assert [row.query for row in await world.rows()] == []  # the student's slots; the signals have their own
    row = world.logged()[-1]
    assert (row.source, row.queries, row.model) == ("signals", ("roses", "heat pump noise"), "")


async def test_a_part_that_is_away_loses_nothing_and_repeats_nothing() -> None:
    world = World("a b", Unavailable("Triton does not answer"), "c d")
    records = [request("one", user=f"u{n}") for n in range(4)]  # two chunks of two
    with pytest.raises(Unavailable):
        await world.lists.process(records)
    await world.lists.process(records)
    assert [len(prompts) for prompts, _ in world.student.calls] == [2, 2, 2]
    assert {row.user_id for row in world.logged()} == {"u0", "u1", "u2", "u3"}


class SlowStudent(ScriptedStudent):
    """Misses its deadline when it is asked for more than two lists at once."""

    async def write(self, prompts: Sequence[str], *, samples: int = 1, seed: int = 0) -> list[Answer]:
        answers = await super().write(prompts, samples=samples, seed=seed)
        return answers if len(prompts) <= 2 else [Overloaded("Deadline Exceeded")] * len(prompts)


async def test_a_student_that_is_too_slow_for_a_batch_is_asked_for_less_at_once() -> None:
    world, student = World(), SlowStudent("a b")
    guarded = GuardedStudent(student, Breaker(failures=3, reset_seconds=0.01))
    settings = Interests(batch_records=8)
    writer = ListWriter(settings, guarded, MemoryEmbedder(), world.store, world.producer, world.clock, EXAMPLES)
    records = [request("one", user=f"u{n}") for n in range(8)]
    for _ in range(6):
        try:
            await writer.process(records)
            break
        except Overloaded:
            continue
    assert [len(prompts) for prompts, _ in student.calls] == [8, 4, 2, 3, 1, 2, 3, 1, 2]
    assert {row.user_id for row in world.logged()} == {f"u{n}" for n in range(8)}


async def test_an_open_breaker_pauses_and_then_goes_on() -> None:
    away = Unavailable("Triton does not answer")
    world = World(away, away, away, "a b")
    for _ in range(3):
        with pytest.raises(Unavailable):
            await world.lists.process([request()])
    await world.lists.process([request()])
    assert [row.query for row in await world.rows()] == ["a b"]


@pytest.mark.parametrize("writer", ["lists", "signals"])
async def test_a_bad_request_is_a_dead_letter(writer: str) -> None:
    world = World()
    bad = Record(topic=Topic.QUERY_REQUESTS, key=b"u1", value=b"{", offset=5)
    await getattr(world, writer).process([bad, request(user="u2")])
    letter, *_ = [m for m in world.producer.sent if m.topic == Topic.DEAD_LETTERS]
    assert read_dead_letter(dict(letter.headers), letter.value or b"").source_offset == 5
    assert await world.rows("u2")


class PickyEmbedder(MemoryEmbedder):
    """Refuses a word for good, as a model refuses what it cannot read."""

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if any("cursed" in text for text in texts):
            raise PermanentError("embedder: a text that it cannot read")
        return await super().embed(texts)


async def test_what_a_part_refuses_for_good_is_a_dead_letter_and_the_rest_goes_on() -> None:
    store, producer = MemoryStore(), MemoryProducer()
    writer = SignalWriter(SETTINGS, PickyEmbedder(), store, producer, lambda: NOW)
    records = [request("roses", user=f"u{n}", offset=n) for n in range(4)] + [request("cursed", user="u9", offset=9)]
    await writer.process(records)
    (letter,) = [m for m in producer.sent if m.topic == Topic.DEAD_LETTERS]
    assert read_dead_letter(dict(letter.headers), letter.value or b"").source_offset == 9
    assert [bool(await store.user_queries(f"u{n}", now_ms=NOW, strong=True)) for n in (0, 1, 2, 3, 9)] == [True] * 4 + [
        False
    ]


def tombstone(user: str = "u1", erased_before: int = NOW, offset: int = 0) -> Record:
    headers = ((Header.ERASED_BEFORE, str(erased_before).encode()),)
    return Record(topic=Topic.QUERY_REQUESTS, key=user.encode(), value=None, offset=offset, headers=headers)


@pytest.mark.parametrize("writer", ["lists", "signals"])
async def test_a_tombstone_removes_the_writers_own_rows_and_the_list(writer: str) -> None:
    world = World("a b; c d")
    await world.lists.process([request(), request(user="u2")])
    await world.signals.process([request(), request(user="u2")])
    slots = STUDENT_SLOTS if writer == "lists" else SIGNAL_SLOTS
    await getattr(world, writer).process([tombstone()])
    assert all(row.slot not in slots for row in await world.rows())
    assert await world.rows()
    assert {row.slot in STUDENT_SLOTS for row in await world.rows("u2")} == {True, False}
    last = world.producer.sent[-1]
    assert (last.topic, last.key, last.value) == (Topic.QUERY_LISTS, b"u1", None)
    assert dict(last.headers) == {
        Header.STAGE: (lists.STAGE if writer == "lists" else signals.STAGE).encode(),
        Header.ERASED_BEFORE: str(NOW).encode(),
    }


@pytest.mark.parametrize("writer", ["lists", "signals"])
async def test_what_was_asked_before_a_tombstone_is_void_and_what_comes_after_is_answered(writer: str) -> None:
    world = World("a b")
    await getattr(world, writer).process([request("old"), tombstone(), request("gone", user="u2"), tombstone("u2")])
    assert not await world.rows()
    await getattr(world, writer).process([request("old"), tombstone(), request("new")])
    assert await world.rows()
    assert [message.value is None for message in world.producer.sent[-2:]] == [True, False]
    assert not await world.rows("u2")


@pytest.mark.parametrize("writer", ["lists", "signals"])
async def test_an_erased_reader_with_the_same_profile_is_answered_again(writer: str) -> None:
    world = World("a b")
    await getattr(world, writer).process([request()])
    await getattr(world, writer).process([tombstone()])
    await getattr(world, writer).process([request()])
    assert await world.rows()


class StubbornStore(MemoryStore):
    """Leaves rows behind the first time, as a store that restarts may."""

    tries = 0

    async def delete_user(self, user_id: str, slots: range = SLOTS) -> int:
        self.tries += 1
        if self.tries == 1:
            raise RetryableError("2 of 2 rows of a reader are still there after erasing: erase again")
        return await super().delete_user(user_id, slots)


async def test_an_erasure_that_leaves_rows_is_tried_again_before_anything_is_said() -> None:
    store, producer = StubbornStore(), MemoryProducer()
    writer = SignalWriter(SETTINGS, MemoryEmbedder(), store, producer, lambda: NOW)
    await writer.process([request()])
    said = len(producer.sent)
    with pytest.raises(RetryableError):
        await writer.process([tombstone()])
    assert len(producer.sent) == said
    await writer.process([tombstone()])
    assert (await store.find_user("u1"), producer.sent[-1].value) == ((), None)
