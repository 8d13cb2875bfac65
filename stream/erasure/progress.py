"""How far the workers are with one erasure, told from what they write. Pure: records in, states out."""

from schemas.erasure import Erasure
from schemas.names import Header, Topic
from stream.dead_letters import SourceRecord
from stream.interests import lists, signals
from stream.profiles.record import ProfileRecord, decode_record

STAGES = frozenset({signals.STAGE, lists.STAGE})


class Progress:
    """Times are UTC ms at which it was seen; None = not yet."""

    def __init__(self, erasure: Erasure) -> None:
        self.erasure = erasure
        self.row: ProfileRecord | None = None  # as it was written after the erasure
        self.signals_found = 0
        self.profile_at: int | None = None
        self.requests_at: int | None = None
        self.lists_at: int | None = None  # rows in the vector store are gone by then too
        self._stages: set[str] = set()

    @property
    def done(self) -> bool:
        return None not in (self.profile_at, self.requests_at, self.lists_at)

    @property
    def waits_for(self) -> frozenset[str]:
        """The workers over query requests that have yet to come to the tombstone."""
        return STAGES - self._stages

    def newest_signal(self) -> int:
        """UTC ms of the newest event that is left in the row; 0 when none is."""
        profile = self.row.profile if self.row else None
        times = (
            [row.occurred_at for kept in (profile.page, profile.search, profile.click) for row in kept]
            if profile
            else []
        )
        return max(times, default=0)

    def take(self, record: SourceRecord, now_ms: int) -> None:
        """Note what a record of any topic says of this erasure, also one that a later erasure of the reader caused."""
        if record.key != self.erasure.user_id.encode():
            return
        if record.topic == Topic.PROFILES_CHANGELOG and record.value is not None:
            self._take_row(decode_record(record.value), now_ms)
        elif record.value is None and _covers(record, self.erasure.erased_before):
            self._take_tombstone(record, now_ms)

    def _take_row(self, row: ProfileRecord, now_ms: int) -> None:
        if row.profile.erased_before >= self.erasure.erased_before:
            self.row = row
            self.profile_at = self.profile_at or now_ms

    def _take_tombstone(self, record: SourceRecord, now_ms: int) -> None:
        headers = dict(record.headers)
        if record.topic == Topic.QUERY_REQUESTS:
            # sent once more after a crash, it may find less
            self.signals_found = max(self.signals_found, int(headers.get(Header.SIGNALS_FOUND, b"0")))
            self.requests_at = self.requests_at or now_ms
        elif record.topic == Topic.QUERY_LISTS:
            self._stages.add(headers.get(Header.STAGE, b"").decode(errors="replace"))
            if not self.waits_for:
                self.lists_at = self.lists_at or now_ms


def _covers(record: SourceRecord, erased_before: int) -> bool:
    said = dict(record.headers).get(Header.ERASED_BEFORE, b"")
    return said.isdigit() and int(said) >= erased_before
