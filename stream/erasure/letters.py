"""Which dead letters are a reader's. Their bytes are broken by definition, so there are several ways to tell.

A letter is the reader's when its key is the reader, when its JSON names the reader, or when its bytes do not decode and
hold the reader's id. Bytes that do not decode, without a key and without the id, cannot be tied to anybody.
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from schemas.names import Topic
from stream.dead_letter_replay import StoredLetter
from stream.dead_letters import DeadLetter

_AVRO = b"\x00"  # the first byte of Confluent's wire format


class _Told(msgspec.Struct):
    """What a broken record may still say."""

    user_id: Any = None
    occurred_at: Any = None


class ReadersLetters(NamedTuple):
    of_reader: list[StoredLetter]
    untied: int  # letters that cannot be tied to any reader


def letters_of(letters: Iterable[StoredLetter], user_id: str, erased_before: int) -> ReadersLetters:
    """The reader's letters from before the erasure: those that failed, or that happened, before it."""
    found = ReadersLetters([], 0)
    untied = 0
    for stored in letters:
        letter = stored.letter
        told = _told(letter.value)
        if _is_of(letter, told, user_id):
            if _oldest(letter, told) <= erased_before:
                found.of_reader.append(stored)
        elif told is None and not letter.source_key:
            untied += 1
    return found._replace(untied=untied)


def _told(value: bytes) -> _Told | None:
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _is_of(letter: DeadLetter, told: _Told | None, user_id: str) -> bool:
    wanted = user_id.encode()
    if letter.source_key == wanted and letter.source_topic != Topic.ARTICLES:
        return True
    if told is not None:
        return bool(told.user_id == user_id)
    if letter.value[:1] == _AVRO:
        return _avro_string(wanted) in letter.value
    return re.search(rb"(?<![\w-])" + re.escape(wanted) + rb"(?![\w-])", letter.value) is not None


def _avro_string(text: bytes) -> bytes:
    """As Avro writes it: the length comes first, so a longer id with the same beginning is another one."""
    length, prefix = 2 * len(text), bytearray()
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes(prefix) + bytes([length]) + text


def _oldest(letter: DeadLetter, told: _Told | None) -> int:
    """UTC ms: a record that says it happened in 2099 failed today, and a request holds the whole profile."""
    if letter.source_topic == Topic.QUERY_REQUESTS:
        return 0
    happened = told.occurred_at if told is not None and isinstance(told.occurred_at, int) else letter.failed_at_ms
    return min(happened, letter.failed_at_ms)


_decoder = msgspec.json.Decoder(_Told)
