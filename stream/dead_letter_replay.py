"""Dead letters as they are now, and sending their records again: the same bytes, key and topic, so the same path.

A letter stays after its record was sent again, because only the worker can tell whether it now succeeds; beside it a
mark says how often it was sent. A letter is open until it has been sent as often as it has failed: replaying twice
sends nothing the second time, unless the record has failed again. No clock is compared.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from schemas.errors import UsageError
from schemas.names import Header, Topic
from stream.dead_letters import DeadLetter, read_dead_letter
from stream.producer import Outgoing, Producer

BATCH = 500
_MARK = b"replayed:"


class StoredLetter(msgspec.Struct, frozen=True):
    """A letter, and how often its record was sent again. `key` is the record's in the topic."""

    letter: DeadLetter
    key: bytes
    sent_again: int = 0

    @property
    def open(self) -> bool:
        return self.letter.replays >= self.sent_again


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which letters. `reason` is a regular expression, found anywhere in the reason, in any case."""

    reason: str = ""
    stage: str = ""
    since_ms: int = 0  # failed at this time or later

    def __post_init__(self) -> None:
        try:
            re.compile(self.reason)
        except re.error as error:
            raise UsageError(f"--reason {self.reason!r} is not a regular expression ({error}): escape it") from error

    def of(self, letters: Iterable[StoredLetter]) -> list[StoredLetter]:
        """Those chosen, the first to fail first."""
        reason = re.compile(self.reason, re.IGNORECASE)
        chosen = [
            stored
            for stored in letters
            if reason.search(stored.letter.reason)
            and self.stage in ("", stored.letter.stage)
            and stored.letter.failed_at_ms >= self.since_ms
        ]
        return sorted(chosen, key=lambda stored: (stored.letter.failed_at_ms, stored.key))


def stored_letters(records: Iterable[Any]) -> list[StoredLetter]:
    """The letters among the records of the topic (key, value and headers, in order), each once, without removed ones.

    A letter that was written twice is the later one, as after compaction.
    """
    letters: dict[bytes, DeadLetter] = {}
    marks: dict[bytes, int] = {}
    for record in records:
        key = record.key or b""
        if key.startswith(_MARK):
            marks[key.removeprefix(_MARK)] = int(record.value or 0)
        elif record.value is None:
            letters.pop(key, None)
        else:
            letters[key] = read_dead_letter(dict(record.headers), record.value)
    return [StoredLetter(letter, key, marks.get(key, 0)) for key, letter in letters.items()]


def replayable(letters: Iterable[StoredLetter]) -> list[StoredLetter]:
    """The open ones that say where they came from."""
    return [stored for stored in letters if stored.open and stored.letter.source_topic not in ("", Topic.DEAD_LETTERS)]


def again(stored: StoredLetter) -> Outgoing:
    """The original record, marked as replayed so that a loop is visible and its next letter has the same key."""
    letter = stored.letter
    headers = (
        (Header.REPLAYED_LETTER, letter.letter_id.encode()),
        (Header.REPLAYS, str(letter.replays + 1).encode()),
    )
    return Outgoing(letter.source_topic, letter.source_key, letter.value, headers)


def mark(stored: StoredLetter) -> Outgoing:
    """Says that the record was sent again, once more than it has failed."""
    return Outgoing(Topic.DEAD_LETTERS, _MARK + stored.key, str(stored.letter.replays + 1).encode())


def removal(stored: StoredLetter) -> list[Outgoing]:
    """Removes the letter and its mark."""
    keys = [stored.key, _MARK + stored.key] if stored.sent_again else [stored.key]
    return [Outgoing(Topic.DEAD_LETTERS, key, None) for key in keys]


async def replay(letters: Sequence[StoredLetter], producer: Producer, on_sent: Callable[[int], None]) -> None:
    """Send the records again; `on_sent` hears how many more. Raises RetryableError: replaying again is right.

    The marks follow their records, so a replay that is cut off sends some again, which changes nothing (design rule 3).
    """
    for first in range(0, len(letters), BATCH):
        batch = letters[first : first + BATCH]
        await producer.send([again(stored) for stored in batch])
        await producer.send([mark(stored) for stored in batch])
        on_sent(len(batch))
