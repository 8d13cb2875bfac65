"""Letters keep one key over replays, and replaying twice sends nothing the second time."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import UsageError
from schemas.names import Header, Topic
from stream.dead_letter_replay import Choice, StoredLetter, removal, replay, replayable, stored_letters
from stream.dead_letters import dead_letter, read_dead_letter, refuses_consent
from stream.producer import MemoryProducer, Outgoing
from tests.stream.doubles import Record

EVENTS = Topic.USER_EVENTS


def failed(record: Record, reason: str = "not JSON", at_ms: int = 1_000, stage: str = "profiles") -> Outgoing:
    return dead_letter(record, stage=stage, reason=reason, failed_at_ms=at_ms)


def original(offset: int = 17) -> Record:
    return Record(topic=EVENTS, partition=3, offset=offset, key=b"ann", value=b"{broken")


def as_records(messages: Sequence[Outgoing]) -> list[Record]:
    """What a reader of the topic is given of what was sent."""
    sent = [message for message in messages if message.topic == Topic.DEAD_LETTERS]
    return [Record(topic=m.topic, key=m.key, value=m.value, headers=m.headers, offset=at) for at, m in enumerate(sent)]


def letters(*messages: Outgoing) -> list[StoredLetter]:
    return stored_letters(as_records(messages))


def consumed(message: Outgoing, offset: int) -> Record:
    """A replayed record as the worker reads it."""
    return Record(topic=message.topic, offset=offset, key=message.key, value=message.value, headers=message.headers)


async def replayed(producer: MemoryProducer) -> list[Outgoing]:
    """What one replay of everything sends to the source topics."""
    before = len(producer.sent)
    await replay(replayable(letters(*producer.sent)), producer, lambda count: None)
    return [message for message in producer.sent[before:] if message.topic != Topic.DEAD_LETTERS]


async def test_a_replay_sends_the_original_bytes_by_the_original_key_and_says_so() -> None:
    producer = MemoryProducer()
    await producer.send([failed(original())])
    (sent,) = await replayed(producer)
    assert (sent.topic, sent.key, sent.value) == (EVENTS, b"ann", b"{broken")
    assert dict(sent.headers) == {Header.REPLAYED_LETTER: b"user-events:3:17", Header.REPLAYS: b"1"}


async def test_replaying_twice_sends_nothing_the_second_time() -> None:
    producer = MemoryProducer()
    await producer.send([failed(original(offset)) for offset in range(3)])
    assert [len(await replayed(producer)) for _ in range(3)] == [3, 0, 0]


async def test_a_record_that_fails_again_is_the_same_letter_again_and_the_loop_is_counted() -> None:
    producer = MemoryProducer()
    await producer.send([failed(original())])
    for times in range(1, 4):
        (sent,) = await replayed(producer)
        await producer.send([failed(consumed(sent, offset=100 + times), reason="still broken")])
        (stored,) = letters(*producer.sent)
        assert stored.letter.letter_id == "user-events:3:17"
        assert (stored.letter.replays, stored.letter.reason, stored.open) == (times, "still broken", True)


async def test_a_replay_that_was_cut_off_is_repeated() -> None:
    producer = MemoryProducer()
    await producer.send([failed(original())])
    (first,) = await replayed(producer)
    producer.sent = [message for message in producer.sent if not message.key.startswith(b"replayed:")]
    assert await replayed(producer) == [first]


@pytest.mark.parametrize("foreign", [b"articles:3:17", b"user-events:three:17", b"user-events", b"\xff", b""])
def test_foreign_headers_do_not_take_a_letters_place(foreign: bytes) -> None:
    headers = ((Header.REPLAYED_LETTER, foreign), (Header.REPLAYS, b"x"))
    message = failed(Record(topic=EVENTS, partition=1, offset=5, key=b"ann", value=b"", headers=headers))
    assert message.key == b"user-events:1:5"
    assert read_dead_letter(dict(message.headers), b"").replays == 0


async def test_a_removed_letter_is_gone_and_so_is_its_mark() -> None:
    producer = MemoryProducer()
    await producer.send([failed(original(1)), failed(original(2))])
    await replayed(producer)
    gone, kept = letters(*producer.sent)
    await producer.send(removal(gone))
    assert [stored.key for stored in letters(*producer.sent)] == [kept.key]
    assert {message.key for message in producer.sent if message.value is None} == {gone.key, b"replayed:" + gone.key}


def test_letters_without_an_origin_are_not_sent_anywhere() -> None:
    assert replayable(letters(Outgoing(Topic.DEAD_LETTERS, b"somebody's", b"bytes"))) == []


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1_000), st.sampled_from(["a", "b"]))))
def test_a_record_read_again_and_again_is_one_letter_the_latest(fails: list[tuple[int, int, str]]) -> None:
    found = letters(*(failed(original(offset), stage=stage, at_ms=at) for offset, at, stage in fails))
    latest = {offset: (at, stage) for offset, at, stage in fails}
    assert {s.letter.source_offset: (s.letter.failed_at_ms, s.letter.stage) for s in found} == latest


def test_letters_are_chosen_by_reason_stage_and_time_the_first_to_fail_first() -> None:
    found = letters(
        failed(original(1), "unknown schema 7", 3_000),
        failed(original(2), "Unknown Schema 8", 2_000),
        failed(original(3), "not JSON", 2_500),
        failed(original(4), "unknown schema 7", 1_000),
        failed(original(5), "unknown schema 7", 2_000, stage="archive"),
    )
    choice = Choice(reason="unknown schema [78]", stage="profiles", since_ms=2_000)
    assert [stored.letter.source_offset for stored in choice.of(found)] == [2, 1]
    assert len(Choice().of(found)) == 5


def test_a_reason_that_is_no_expression_is_named() -> None:
    with pytest.raises(UsageError, match="--reason"):
        Choice(reason="(unclosed")


@pytest.mark.parametrize(
    ("value", "refused"),
    [
        (b'{"consent": false, "kind": "purchase"}', True),
        (b'{"text": "x", "consent" :\n false', True),
        (b'{"consent": true}', False),
        (b'{"text": "say \\"consent\\": false"}', False),
        (b"", False),
        (None, False),
    ],
)
def test_a_refusal_is_seen_in_bytes_that_do_not_decode(value: bytes | None, refused: bool) -> None:
    assert refuses_consent(value) == refused
