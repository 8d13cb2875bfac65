"""Reading a batch of query requests: the newest of each reader, without those already answered."""

from collections import OrderedDict
from collections.abc import Iterable

from schemas.codec import REQUESTS
from schemas.errors import InvalidRecord
from schemas.queries import QueryRequest
from stream import monitoring
from stream.dead_letters import SourceRecord, dead_letter
from stream.producer import Outgoing


def read_requests(
    records: Iterable[SourceRecord], *, stage: str, now_ms: int
) -> tuple[list[QueryRequest], list[Outgoing]]:
    """The newest request of each reader in `records` (they come in the partition's order), and the dead letters."""
    newest: dict[str, QueryRequest] = {}
    letters: list[Outgoing] = []
    for record in records:
        if record.value is None:
            continue  # a tombstone: the reader was erased, nothing is asked for
        try:
            request = REQUESTS.decode(record.value)
        except InvalidRecord as error:
            letters.append(dead_letter(record, stage=stage, reason=str(error), failed_at_ms=now_ms))
            continue
        if request.user_id in newest:
            monitoring.REQUESTS_SKIPPED.labels(stage, "newer").inc()
        newest[request.user_id] = request
    return list(newest.values()), letters


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

    def note(self, request: QueryRequest) -> None:
        self._fingerprints[request.user_id] = request.profile_fingerprint
        self._fingerprints.move_to_end(request.user_id)
        if len(self._fingerprints) > self._readers:
            self._fingerprints.popitem(last=False)
