"""POST /v1/events without HTTP: check each event, send the good ones, say of each what became of it."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from schemas.codec import EVENTS, Codec
from schemas.errors import InvalidRecord, RetryableError
from schemas.event import Event, check_time
from schemas.names import Topic
from stream import monitoring
from stream.api.messages import DeliveryStatus, EventAnswer, EventBatch, EventResult
from stream.producer import Outgoing, Producer

SEND_EVENTS = 50  # acknowledged or not as one: a broker that goes away in the middle leaves few in doubt
_DROPPED = EventResult("dropped")
_UNCONFIRMED = "Kafka did not confirm it: send it again, the same id makes that harmless"

Delivered = tuple[DeliveryStatus, str]  # and the reason

_decoder = msgspec.json.Decoder(EventBatch)


class EventIntake:
    def __init__(
        self, producer: Producer, clock_ms: Callable[[], int], *, skew_ms: int, codec: Codec[Event] = EVENTS
    ) -> None:
        self._producer, self._clock_ms, self._skew_ms, self._codec = producer, clock_ms, skew_ms, codec

    async def take(self, body: bytes) -> EventAnswer:
        """Returns when the broker has every accepted event. Raises InvalidRecord when `body` is no batch."""
        checked = [self._check(bytes(event)) for event in decode_batch(body).events]
        outgoing = [message for message in checked if isinstance(message, Outgoing)]
        sent = (EventResult(*result) for result in await deliver(self._producer, outgoing))
        results = [message if isinstance(message, EventResult) else next(sent) for message in checked]
        return _answer(results)

    def _check(self, data: bytes) -> Outgoing | EventResult:
        try:
            event = self._codec.decode(data)
            if not event.consent:
                return _DROPPED
            check_time(event, now_ms=self._clock_ms(), skew_ms=self._skew_ms)
        except InvalidRecord as error:
            return EventResult("rejected", str(error))
        return Outgoing(Topic.USER_EVENTS, event.user_id.encode(), self._codec.encode(event))


async def deliver(producer: Producer, messages: Sequence[Outgoing]) -> list[Delivered]:
    """What became of each message, once the broker has answered."""
    chunks = [messages[at : at + SEND_EVENTS] for at in range(0, len(messages), SEND_EVENTS)]
    outcomes = await asyncio.gather(*map(producer.send, chunks), return_exceptions=True)
    results: list[Delivered] = []
    for chunk, outcome in zip(chunks, outcomes, strict=True):
        results += [_result(outcome)] * len(chunk)
    return results


def decode_batch(body: bytes) -> EventBatch:
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRecord(f'{error}: send {{"events": [...]}} with 1 to 1000 events') from error


def _result(outcome: BaseException | None) -> Delivered:
    if outcome is None:
        return "accepted", ""
    if isinstance(outcome, RetryableError):
        return "unknown", _UNCONFIRMED
    if isinstance(outcome, InvalidRecord):
        return "rejected", str(outcome)
    raise outcome


def _answer(results: list[EventResult]) -> EventAnswer:
    counts = {
        status: sum(result.status == status for result in results) for status in ("accepted", "dropped", "rejected")
    }
    unknown = len(results) - sum(counts.values())
    for status, count in {**counts, "unknown": unknown}.items():
        monitoring.API_EVENTS.labels(status).inc(count)
    return EventAnswer(counts["accepted"], counts["rejected"], unknown, results, counts["dropped"])
