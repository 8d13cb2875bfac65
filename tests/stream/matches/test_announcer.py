"""The second step over twins: bounded by reader and hour, nothing lost, nothing twice."""

from collections.abc import Mapping

import pytest

from schemas.codec import ERASURES, MATCHES
from schemas.config import Matches
from schemas.erasure import Erasure
from schemas.errors import Unavailable
from schemas.match import FreshMatch
from schemas.names import Header, Topic
from stream.matches.announcer import Announcer, MemoryNotStored, decode_memory
from stream.matches.rules import HOUR_MS
from stream.producer import MemoryProducer
from tests.stream.doubles import Record

NOW = 1_800_000_000_000


class MemoryRows:
    """The table in memory; `failures` makes the next writes raise."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.failures = 0

    def row(self, partition: int, key: bytes) -> bytes | None:
        return self.rows.get(key)

    async def write(self, rows: Mapping[int, Mapping[bytes, bytes | None]]) -> None:
        if self.failures:
            self.failures -= 1
            raise Unavailable("Kafka does not answer")
        for changed in rows.values():
            for key, value in changed.items():
                if value is None:
                    self.rows.pop(key, None)
                else:
                    self.rows[key] = value


class World:
    def __init__(self, *, per_reader_hour: int = 2) -> None:
        self.now_ms = NOW
        self.table, self.producer = MemoryRows(), MemoryProducer()
        self.settings = Matches(per_reader_hour=per_reader_hour)
        self.restart()

    def restart(self) -> None:
        """A new worker on what is durable."""
        self.announcer = Announcer(self.settings, self.table, self.producer, lambda: self.now_ms)

    def told(self) -> list[tuple[str, str]]:
        sent = [one for one in self.producer.sent if one.topic == Topic.FRESH_MATCHES]
        matches = [MATCHES.decode(one.value) for one in sent]
        assert [one.key for one in sent] == [match.user_id.encode() for match in matches]
        return [(match.user_id, match.article_id) for match in matches]

    def remembered(self, user_id: str) -> list[str]:
        row = self.table.rows.get(user_id.encode())
        return [] if row is None else [one.article_id for one in decode_memory(row).announced]


def candidate(user_id: str, article_id: str, *, matched_at: int = NOW) -> Record:
    match = FreshMatch(
        article_id=article_id,
        user_id=user_id,
        title="t",
        url="",
        query="q",
        source="student",
        similarity=0.7,
        list_age_ms=1_000,
        published_at=NOW,
        matched_at=matched_at,
        expires_at=NOW + 100 * HOUR_MS,
    )
    return Record(topic=Topic.MATCH_CANDIDATES, key=user_id.encode(), value=MATCHES.encode(match))


def erasure(user_id: str, erased_before: int = NOW) -> Record:
    value = ERASURES.encode(Erasure(user_id=user_id, erased_before=erased_before, requested_at=NOW))
    return Record(topic=Topic.ERASURES, key=user_id.encode(), value=value)


async def test_candidates_become_matches_up_to_the_hourly_bound_of_each_reader() -> None:
    world = World()
    await world.announcer.process([candidate("ann", name) for name in "abc"] + [candidate("bob", "c")])
    assert world.told() == [("ann", "a"), ("ann", "b"), ("bob", "c")]


async def test_the_bound_holds_over_batches_and_restarts() -> None:
    world = World()
    for name in "abcd":
        await world.announcer.process([candidate("ann", name)])
        world.restart()
    assert world.told() == [("ann", "a"), ("ann", "b")]
    world.now_ms += HOUR_MS
    await world.announcer.process([candidate("ann", "e", matched_at=world.now_ms)])
    assert world.told()[2:] == [("ann", "e")]


async def test_the_same_candidates_again_announce_nothing() -> None:
    world = World()
    batch = [candidate("ann", "a"), candidate("ann", "a"), candidate("bob", "a")]
    await world.announcer.process(batch)
    world.restart()
    await world.announcer.process(batch)
    assert world.told() == [("ann", "a"), ("bob", "a")]


async def test_a_broker_that_is_away_loses_nothing() -> None:
    world = World()
    world.producer.failures = 1
    with pytest.raises(Unavailable):
        await world.announcer.process([candidate("ann", "a")])
    assert world.remembered("ann") == []
    await world.announcer.process([candidate("ann", "a")])
    assert world.told() == [("ann", "a")]


async def test_a_memory_that_cannot_be_stored_ends_the_worker_and_the_next_one_says_it_again() -> None:
    world = World()
    world.table.failures = 1
    with pytest.raises(MemoryNotStored):
        await world.announcer.process([candidate("ann", "a")])
    world.restart()
    await world.announcer.process([candidate("ann", "a")])
    assert world.told() == [("ann", "a"), ("ann", "a")]  # the same key and article: readers of the topic see one
    assert world.remembered("ann") == ["a"]


async def test_what_does_not_decode_is_a_dead_letter_and_the_rest_goes_on() -> None:
    world = World()
    broken = Record(topic=Topic.MATCH_CANDIDATES, offset=7, key=b"ann", value=b"{}")
    await world.announcer.process([broken, candidate("ann", "a"), Record(topic=Topic.MATCH_CANDIDATES, key=b"ann")])
    (letter,) = [one for one in world.producer.sent if one.topic == Topic.DEAD_LETTERS]
    assert dict(letter.headers)[Header.STAGE] == b"matches"
    assert world.told() == [("ann", "a")]


async def test_an_erased_readers_memory_goes_and_older_lists_announce_nothing() -> None:
    world = World()
    await world.announcer.process([candidate("ann", "a"), candidate("bob", "a")])
    await world.announcer.process([erasure("ann"), candidate("ann", "b"), candidate("bob", "b")])
    assert world.remembered("ann") == []
    assert world.told() == [("ann", "a"), ("bob", "a"), ("bob", "b")]
    world.now_ms += 60_000
    await world.announcer.process([candidate("ann", "c", matched_at=world.now_ms)])
    assert world.told()[3:] == [("ann", "c")]


async def test_memories_are_forgotten_after_an_hour_and_not_before() -> None:
    world = World()
    await world.announcer.process([candidate("ann", "a"), erasure("eve")])
    world.now_ms += HOUR_MS // 2
    await world.announcer.process([candidate("bob", "a")])
    world.now_ms += HOUR_MS // 2
    world.table.failures = 1
    await world.announcer.forget_old(0, world.table.rows)  # put off
    assert set(world.table.rows) == {b"ann", b"bob", b"eve"}
    await world.announcer.forget_old(0, world.table.rows)
    assert set(world.table.rows) == {b"bob"}
