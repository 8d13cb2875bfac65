"""Finding the one record of a batch that a part refuses for good, so that it alone becomes a dead letter."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from schemas.errors import PermanentError
from stream import monitoring
from stream.dead_letters import SourceRecord, dead_letter
from stream.producer import Producer

Row = TypeVar("Row", bound=SourceRecord)


async def process_apart(
    process: Callable[[Sequence[Row]], Awaitable[None]],
    records: Sequence[Row],
    *,
    producer: Producer,
    stage: str,
    clock_ms: Callable[[], int],
) -> None:
    """`process(records)`; when a part refuses them, their halves, down to the record that is refused alone.

    `process` must be repeatable. Raises RetryableError as `process` does.
    """
    try:
        await process(records)
    except PermanentError as error:
        if len(records) == 1:
            letter = dead_letter(records[0], stage=stage, reason=str(error), failed_at_ms=clock_ms())
            await producer.send([letter])
            monitoring.DEAD_LETTERS.labels(stage).inc()
            return
        middle = len(records) // 2
        for half in (records[:middle], records[middle:]):
            await process_apart(process, half, producer=producer, stage=stage, clock_ms=clock_ms)
