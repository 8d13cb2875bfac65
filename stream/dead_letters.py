"""Dead letters: records that can never be processed, kept with the reason, their origin and their original bytes.

The key is made from the origin, so that a record that is read twice is one dead letter after compaction, and so is a
record that fails again after it was replayed.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from schemas.names import Header, Topic
from stream.producer import Outgoing

_REFUSAL = re.compile(rb'"consent"\s*:\s*false')


class SourceRecord(Protocol):
    """What is needed of a consumed record."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


class Origin(NamedTuple):
    """Where a record that cannot be processed was read first."""

    topic: str
    partition: int
    offset: int
    replays: int = 0  # how often it was sent again since

    @property
    def letter_id(self) -> str:
        return f"{self.topic}:{self.partition}:{self.offset}"


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter as it is read back. `value` holds the original bytes."""

    reason: str
    stage: str
    source_topic: str
    source_partition: int
    source_offset: int
    source_key: bytes
    failed_at_ms: int
    value: bytes
    replays: int = 0  # how often the record had been sent again when it failed

    @property
    def letter_id(self) -> str:
        return Origin(self.source_topic, self.source_partition, self.source_offset).letter_id


def dead_letter(record: SourceRecord, *, stage: str, reason: str, failed_at_ms: int) -> Outgoing:
    """The message for the dead-letter topic; send it, and wait, before the input is acknowledged."""
    origin = _origin(record)
    headers = {
        Header.REASON: reason,
        Header.STAGE: stage,
        Header.SOURCE_TOPIC: origin.topic,
        Header.SOURCE_PARTITION: str(origin.partition),
        Header.SOURCE_OFFSET: str(origin.offset),
        Header.FAILED_AT: str(failed_at_ms),
        Header.REPLAYS: str(origin.replays),
    }
    encoded = [(name, text.encode()) for name, text in headers.items()]
    value = record.value or b""
    return Outgoing(
        Topic.DEAD_LETTERS, origin.letter_id.encode(), value, (*encoded, (Header.SOURCE_KEY, record.key or b""))
    )


def read_dead_letter(headers: Mapping[str, bytes], value: bytes) -> DeadLetter:
    """The inverse of `dead_letter`; unknown headers are ignored."""

    def text(name: str) -> str:
        return headers.get(name, b"").decode(errors="replace")

    return DeadLetter(
        reason=text(Header.REASON),
        stage=text(Header.STAGE),
        source_topic=text(Header.SOURCE_TOPIC),
        source_partition=int(text(Header.SOURCE_PARTITION) or -1),
        source_offset=int(text(Header.SOURCE_OFFSET) or -1),
        source_key=headers.get(Header.SOURCE_KEY, b""),
        failed_at_ms=int(text(Header.FAILED_AT) or 0),
        value=value,
        replays=int(text(Header.REPLAYS) or 0),
    )


def refuses_consent(value: bytes | None) -> bool:
    """Whether the bytes of an event say that it may not be kept, also where they do not decode as one.

    Such a record must not become a dead letter. JSON only: a text that quotes these words has escaped quotes.
    """
    return value is not None and _REFUSAL.search(value) is not None


def _origin(record: SourceRecord) -> Origin:
    """Of a record that was replayed: that of its first letter, so that letters do not multiply."""
    headers = dict(record.headers)
    here = Origin(record.topic, record.partition, record.offset)
    topic, _, place = headers.get(Header.REPLAYED_LETTER, b"").decode(errors="replace").partition(":")
    numbers = re.fullmatch(r"(\d{1,10}):(\d{1,19})", place)
    if topic != record.topic or numbers is None:
        return here  # not ours: anyone may write headers
    replays = headers.get(Header.REPLAYS, b"")
    return Origin(topic, int(numbers[1]), int(numbers[2]), int(replays) if replays.isdigit() else 1)
