"""Batches over several runs: collect by count or time, acknowledge when the loop's body is done.

@app.agent(app.run_topic("user-events"))
async def fold(stream):
    async for batch in batches(stream, max_records=20_000, within_seconds=0.5):
        ...                      # an exception here acknowledges nothing and ends the worker
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Any

from stream.transport.record import Record


class Batch:
    """Records of several runs and partitions, each partition in its order."""

    __slots__ = ("_events", "records")

    def __init__(self, events: list[Any]) -> None:
        self._events = events
        self.records: list[Record] = [record for event in events for record in event.value]

    def __len__(self) -> int:
        return len(self.records)

    def by_partition(self) -> dict[int, list[Record]]:
        """The records by partition number; topics with the same keys and partition counts share a number."""
        found: dict[int, list[Record]] = {}
        for event in self._events:
            found.setdefault(event.message.partition, []).extend(event.value)
        return found

    def acknowledge(self) -> None:
        for event in self._events:
            event.ack()


async def batches(
    stream: Any, *, max_records: int, within_seconds: float, quiet_seconds: float | None = None
) -> AsyncIterator[Batch]:
    """Batches that close when `max_records` is reached (by whole runs) or `within_seconds` after the first run.

    With `quiet_seconds` also when nothing has come for so long: an idle system answers at once, a busy one still writes
    each reader's state once for many events. A batch is acknowledged when the next one is asked for, so only when the
    body has ended without an exception.
    """
    stream.enable_acks = False
    upcoming = _Upcoming(stream.events())
    quiet = within_seconds if quiet_seconds is None else quiet_seconds
    try:
        while collected := await _collected(upcoming, max_records, within_seconds, quiet):
            batch = Batch(collected)
            yield batch
            batch.acknowledge()
    finally:
        await upcoming.close()


async def _collected(upcoming: "_Upcoming", max_records: int, within_seconds: float, quiet_seconds: float) -> list[Any]:
    """The events of one batch; none when the stream was stopped (what was collected is delivered again)."""
    loop = asyncio.get_running_loop()
    if not (event := await upcoming.event(None)):
        return []
    collected, count, close_at = [event], len(event.value), loop.time() + within_seconds
    while count < max_records:
        try:
            event = await upcoming.event(min(quiet_seconds, max(0.0, close_at - loop.time())))
        except TimeoutError:
            break
        if event is None:
            return []
        collected.append(event)
        count += len(event.value)
    return collected


class _Upcoming:
    """The next event, waited for without cancelling the stream's generator when the time is up."""

    def __init__(self, events: AsyncGenerator[Any, None]) -> None:
        self._events = events
        self._next: asyncio.Task[Any] | None = None

    async def event(self, timeout_seconds: float | None) -> Any:
        if self._next is None:
            self._next = asyncio.ensure_future(anext(self._events, None))
        await asyncio.wait([self._next], timeout=timeout_seconds)
        if not self._next.done():
            raise TimeoutError
        event, self._next = self._next.result(), None
        return event

    async def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
            with suppress(asyncio.CancelledError):
                await self._next
        await self._events.aclose()
