"""Which dead letters are a reader's, however broken their bytes are."""

import io

import fastavro
import pytest

from schemas.names import Topic
from stream.dead_letter_replay import StoredLetter
from stream.dead_letters import DeadLetter
from stream.erasure.letters import letters_of

NOW = 1_700_000_000_000
DAY = 86_400_000


def letter(
    value: bytes = b"", *, key: bytes = b"", topic: str = Topic.USER_EVENTS, failed_at_ms: int = NOW
) -> StoredLetter:
    made = DeadLetter(
        reason="",
        stage="profiles",
        source_topic=topic,
        source_partition=0,
        source_offset=1,
        source_key=key,
        failed_at_ms=failed_at_ms,
        value=value,
    )
    return StoredLetter(made, b"user-events:0:1")


@pytest.mark.parametrize(
    "stored",
    [
        letter(b"\xff\x00", key=b"ann"),
        letter(b'{"user_id": "ann", "kind": "purchase"}', key=b"somebody else"),
        letter(b'{"user_id": "\\u0061nn"}'),
        letter(b'{"user_id": "ann", "text": "cut o'),
        letter(b"\x00\x00\x00\x00\x07\x06ann\x0a"),  # Avro of a schema that nobody knows
        letter(b"anything", key=b"ann", topic=Topic.QUERY_REQUESTS, failed_at_ms=NOW + DAY),
        letter(b'{"user_id": "ann", "occurred_at": 4070908800000}'),  # in 2099
        letter(b'{"user_id": "ann", "occurred_at": "yesterday"}'),
        letter(f'{{"user_id": "ann", "occurred_at": {NOW - DAY}}}'.encode(), failed_at_ms=NOW + DAY),  # came late
    ],
)
def test_a_letter_of_the_reader_from_before_is_found(stored: StoredLetter) -> None:
    assert letters_of([stored], "ann", NOW).of_reader == [stored]


@pytest.mark.parametrize(
    "stored",
    [
        letter(b'{"user_id": "anna"}'),
        letter(b'{"user_id": "bob", "text": "ann"}'),
        letter(b"cut off: joann-1"),
        letter(b"cut off: ann-2"),
        letter(b"[1, 2]", key=b"bob"),
        letter(b"{}", key=b"ann", topic=Topic.ARTICLES),  # an article of that id
        letter(b'{"user_id": "ann"}', failed_at_ms=NOW + 1),  # came back since
    ],
)
def test_a_letter_of_another_reader_or_from_later_is_left_alone(stored: StoredLetter) -> None:
    assert letters_of([stored], "ann", NOW).of_reader == []


def test_bytes_that_cannot_be_tied_to_anybody_are_counted() -> None:
    found = letters_of([letter(b"\xff"), letter(b"\xff", key=b"bob"), letter(b"{}"), letter(b"ann \xff")], "ann", NOW)
    assert (len(found.of_reader), found.untied) == (1, 1)


@pytest.mark.parametrize("length", [1, 24, 63, 64, 128])
def test_an_id_in_broken_avro_is_told_from_a_longer_one(length: int) -> None:
    user_id = "u" * length
    broken = {
        name: letter(b"\x00\x00\x00\x00\x07" + fastavro_string(text) + b"0 cut o")
        for name, text in {"ours": user_id, "longer": user_id + "1", "shorter": user_id[1:] + "1"}.items()
    }
    assert letters_of(broken.values(), user_id, NOW).of_reader == [broken["ours"]]


def fastavro_string(text: str) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "string", text)
    return out.getvalue()


@pytest.mark.parametrize("user_id", ["a.b", "x+(", "日本"])
def test_ids_are_taken_literally(user_id: str) -> None:
    ours = letter(f"cut off {user_id} {{".encode())
    other = letter(f"cut off {user_id[0]}?{user_id[1:]}".encode())
    assert letters_of([ours, other], user_id, NOW).of_reader == [ours]
