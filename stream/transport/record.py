"""What a run carries, and how a topic opts in: its schema is a `RunSchema`."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import faust
import msgspec
from faust.types.tuples import TP, ConsumerMessage

from stream.transport.ledger import Run


class Record(msgspec.Struct, frozen=True, gc=False):
    """One Kafka record, undecoded. A value of None is a tombstone."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


def to_records(fetched: Iterable[Any]) -> list[Record]:
    """aiokafka's records as ours."""
    return [Record(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, r.headers) for r in fetched]


class RunSchema(faust.Schema):  # type: ignore[misc]  # faust is untyped here
    """Marks a topic whose consecutive records arrive as one message, and passes them through undecoded."""

    def compile(self, app: Any, **_: Any) -> Callable[..., Awaitable[Any]]:
        create_event = app.create_event

        async def decode(message: ConsumerMessage, *, propagate: bool = False) -> Any:
            return create_event(None, message.value, None, message)

        return decode


class RunMessage(ConsumerMessage):  # type: ignore[misc]  # faust is untyped here
    """The message of one run: its value is the records, its offset the last one's.

    Faust sets `acked` from two places (`Consumer.ack`, and inlined in its compiled stream), so the property is the
    one place where both are seen; it writes to the run, which outlives the message.
    """

    __slots__ = ("run",)

    def __init__(self, tp: TP, run: Run, records: list[Record], generation_id: int) -> None:
        self.run = run
        last = records[-1]
        super().__init__(
            tp.topic,
            tp.partition,
            last.offset,
            last.timestamp_ms / 1000.0,
            0,
            None,
            None,
            records,
            None,
            tp=tp,
            generation_id=generation_id,
        )

    @property
    def acked(self) -> bool:
        return self.run.acked

    @acked.setter
    def acked(self, value: bool) -> None:
        self.run.acked = value
