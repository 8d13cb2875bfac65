"""POST /v1/outcomes without HTTP: what readers did with answers, checked one by one, onto the topic.

An outcome is no user event: it says how an answer did, and changes no profile. A portal that wants a click to teach the
reader's profile posts it to /v1/events too, where consent decides.
"""

from collections.abc import Callable

import msgspec

from schemas.codec import OUTCOMES, Codec
from schemas.errors import InvalidRecord
from schemas.event import check_time
from schemas.exposure import Outcome, check_outcome
from schemas.names import Topic
from stream import monitoring
from stream.api.event_intake import deliver
from stream.api.messages import OutcomeAnswer, OutcomeBatch, OutcomeResult
from stream.api.request_memory import RequestMemory
from stream.producer import Outgoing, Producer

UNKNOWN_REQUEST = (
    "this process does not know the request: fine when another one answered it, or it was before a restart; "
    "else check request_id"
)
_decoder = msgspec.json.Decoder(OutcomeBatch)


class _Checked(msgspec.Struct, frozen=True):
    message: Outgoing
    warning: str


class OutcomeIntake:
    def __init__(
        self,
        producer: Producer,
        requests: RequestMemory,
        clock_ms: Callable[[], int],
        *,
        skew_ms: int,
        codec: Codec[Outcome] = OUTCOMES,
    ) -> None:
        self._producer, self._requests, self._clock_ms = producer, requests, clock_ms
        self._skew_ms, self._codec = skew_ms, codec

    async def take(self, body: bytes) -> OutcomeAnswer:
        """Returns when the broker has every accepted outcome. Raises InvalidRecord when `body` is no batch."""
        checked = [self._check(bytes(outcome)) for outcome in decode_batch(body).outcomes]
        sent = iter(await deliver(self._producer, [row.message for row in checked if isinstance(row, _Checked)]))
        results: list[OutcomeResult] = []
        for row in checked:
            if isinstance(row, _Checked):
                status, reason = next(sent)
                results.append(OutcomeResult(status, reason, row.warning if status == "accepted" else ""))
            else:
                results.append(row)
        return _answer(results)

    def _check(self, data: bytes) -> _Checked | OutcomeResult:
        try:
            outcome = check_outcome(self._codec.decode(data))
            check_time(outcome, now_ms=self._clock_ms(), skew_ms=self._skew_ms)
            warning = self._warning(outcome)
        except InvalidRecord as error:
            return OutcomeResult("rejected", str(error))
        return _Checked(Outgoing(Topic.OUTCOMES, outcome.user_id.encode(), self._codec.encode(outcome)), warning)

    def _warning(self, outcome: Outcome) -> str:
        if outcome.request_id is None:
            return ""
        reader = self._requests.reader(outcome.request_id)
        if reader is None:
            monitoring.OUTCOMES_OF_UNKNOWN_REQUESTS.inc()
            return UNKNOWN_REQUEST
        if reader != outcome.user_id:
            raise InvalidRecord("request_id is of another reader's answer: send the one that came with this answer")
        return ""


def decode_batch(body: bytes) -> OutcomeBatch:
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRecord(f'{error}: send {{"outcomes": [...]}} with 1 to 1000 outcomes') from error


def _answer(results: list[OutcomeResult]) -> OutcomeAnswer:
    counts = {
        status: sum(result.status == status for result in results) for status in ("accepted", "rejected", "unknown")
    }
    for status, count in counts.items():
        monitoring.API_OUTCOMES.labels(status).inc(count)
    return OutcomeAnswer(counts["accepted"], counts["rejected"], counts["unknown"], results)
