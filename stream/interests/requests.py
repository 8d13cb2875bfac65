"""Reading a batch of query requests: the newest of each reader, without those already answered."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from schemas.codec import Codec
from schemas.errors import InvalidRecord
from schemas.names import Header
from schemas.queries import QueryRequest
from stream import monitoring
from stream.dead_letters import SourceRecord, dead_letter
from stream.producer import Outgoing


class Requests(NamedTuple):
    """What a batch asks for. A reader in `erased` is erased first, and then answered if in `newest` too."""

    newest: list[QueryRequest]
    erased: dict[str, int]  # erased_before (UTC ms) by user_id
    letters: list[Outgoing]


def read_requests(records: Iterable[SourceRecord], codec: Codec[QueryRequest], *, stage: str, now_ms: int) -> Requests:
    """The newest request of each reader in `records` (they come in the partition's order), erasures and dead letters.

    A tombstone voids what the reader's earlier records asked for.
    """
    newest: dict[str, QueryRequest] = {}
    found = Requests([], {}, [])
    for record in records:
        if record.value is None:
            user_id, erased_before = _erased(record)
            found.erased[user_id] = max(erased_before, found.erased.get(user_id, 0))
            newest.pop(user_id, None)
            continue
        try:
            request = codec.decode(record.value)
        except InvalidRecord as error:
            found.letters.append(dead_letter(record, stage=stage, reason=str(error), failed_at_ms=now_ms))
            continue
        if request.user_id in newest:
            monitoring.REQUESTS_SKIPPED.labels(stage, "newer").inc()
        newest[request.user_id] = request
    found.newest.extend(newest.values())
    return found


def _erased(record: SourceRecord) -> tuple[str, int]:
    before = dict(record.headers).get(Header.ERASED_BEFORE, b"")
    return (record.key or b"").decode(errors="replace"), int(before) if before.isdigit() else 0


class Answered:
    """The fingerprints answered last, so that a repeated request costs nothing. Forgetting one is harmless."""

    def __init__(self, stage: str, readers: int = 100_000) -> None:
        self._stage = stage
        self._readers = readers
        self._fingerprints: OrderedDict[str, str] = OrderedDict()

    def unanswered(self, requests: Iterable[QueryRequest]) -> list[QueryRequest]:
        asked = list(requests)
        fresh = [r for r in asked if self._fingerprints.get(r.user_id) != r.profile_fingerprint]
        monitoring.REQUESTS_SKIPPED.labels(self._stage, "unchanged").inc(len(asked) - len(fresh))
        return fresh

    def forget(self, user_ids: Iterable[str]) -> None:
        for user_id in user_ids:
            self._fingerprints.pop(user_id, None)

    def note(self, request: QueryRequest) -> None:
        self._fingerprints[request.user_id] = request.profile_fingerprint
        self._fingerprints.move_to_end(request.user_id)
        if len(self._fingerprints) > self._readers:
            self._fingerprints.popitem(last=False)
