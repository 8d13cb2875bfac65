"""Dead letters: records that can never be processed, kept with the reason, their origin and their original bytes.

The key is made from the origin, so that a record that is read twice is one dead letter after compaction.
"""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from schemas.names import Header, Topic
from stream.producer import Outgoing


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

    @property
    def letter_id(self) -> str:
        return f"{self.source_topic}:{self.source_partition}:{self.source_offset}"


def dead_letter(record: SourceRecord, *, stage: str, reason: str, failed_at_ms: int) -> Outgoing:
    """The message for the dead-letter topic; send it, and wait, before the input is acknowledged."""
    headers = {
        Header.REASON: reason,
        Header.STAGE: stage,
        Header.SOURCE_TOPIC: record.topic,
        Header.SOURCE_PARTITION: str(record.partition),
        Header.SOURCE_OFFSET: str(record.offset),
        Header.FAILED_AT: str(failed_at_ms),
    }
    encoded = [(name, text.encode()) for name, text in headers.items()]
    key = f"{record.topic}:{record.partition}:{record.offset}".encode()
    return Outgoing(Topic.DEAD_LETTERS, key, record.value or b"", (*encoded, (Header.SOURCE_KEY, record.key or b"")))


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
    )
