"""`batches` on a double of Faust's stream."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from stream.transport import Record, batches


class Message:
    def __init__(self, partition: int) -> None:
        self.partition = partition


class Event:
    def __init__(self, partition: int, first: int, count: int) -> None:
        self.message = Message(partition)
        self.value = [Record("t", partition, first + n, 0, b"k", b"v") for n in range(count)]
        self.acked = False

    def ack(self) -> None:
        self.acked = True


class Stream:
    """Gives events as they are put; None ends it."""

    enable_acks = True

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self.closed = False

    def put(self, partition: int, first: int, count: int) -> Event:
        event = Event(partition, first, count)
        self.queue.put_nowait(event)
        return event

    async def events(self) -> AsyncIterator[Event]:
        try:
            while (event := await self.queue.get()) is not None:
                yield event
        finally:
            self.closed = True


async def settled() -> None:
    """Every task is as far as it gets."""
    for _ in range(100):
        await asyncio.sleep(0)


async def collect(stream: Any, **limits: Any) -> list[int]:
    return [len(batch) async for batch in batches(stream, **limits)]


async def test_a_batch_closes_by_count_over_whole_runs_and_partitions() -> None:
    stream = Stream()
    for n in range(5):
        stream.put(n % 2, 3 * n, 3)
    reader = batches(stream, max_records=6, within_seconds=60.0)
    first = await anext(reader)
    assert [(r.partition, r.offset) for r in first.records] == [(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (1, 5)]
    assert {p: len(records) for p, records in first.by_partition().items()} == {0: 3, 1: 3}
    assert not stream.enable_acks
    await reader.aclose()  # type: ignore[attr-defined]


async def test_a_batch_closes_by_time_after_its_first_run() -> None:
    stream = Stream()
    reader = batches(stream, max_records=1000, within_seconds=0.4)
    upcoming = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0.5)
    assert not upcoming.done()  # time runs from the first run, not from the last batch
    stream.put(0, 0, 2)
    stream.put(0, 2, 2)
    assert len(await upcoming) == 4
    stream.put(0, 4, 1)
    assert len(await anext(reader)) == 1
    await reader.aclose()  # type: ignore[attr-defined]


async def test_a_quiet_stream_closes_a_batch_early() -> None:
    stream = Stream()
    reader = batches(stream, max_records=1000, within_seconds=60.0, quiet_seconds=0.5)
    upcoming = asyncio.ensure_future(anext(reader))
    for n in range(4):
        stream.put(0, n, 1)
        await settled()
        assert not upcoming.done()
    assert len(await asyncio.wait_for(upcoming, 30.0)) == 4
    await reader.aclose()  # type: ignore[attr-defined]


async def test_a_batch_is_acknowledged_when_the_next_is_asked_for() -> None:
    stream = Stream()
    first, second = stream.put(0, 0, 1), stream.put(0, 1, 1)
    reader = batches(stream, max_records=1, within_seconds=60.0)
    await anext(reader)
    assert not first.acked
    await anext(reader)
    assert first.acked
    assert not second.acked
    await reader.aclose()
    assert not second.acked
    assert stream.closed


async def test_an_exception_in_the_body_acknowledges_nothing() -> None:
    stream = Stream()
    event = stream.put(0, 0, 1)

    async def agent() -> None:
        async for _ in batches(stream, max_records=1, within_seconds=60.0):
            raise RuntimeError("body")

    with pytest.raises(RuntimeError, match="body"):
        await agent()
    assert not event.acked


async def test_a_stopped_stream_ends_the_loop_and_leaves_the_open_batch() -> None:
    stream = Stream()
    event = stream.put(0, 0, 1)
    stream.queue.put_nowait(None)
    assert await collect(stream, max_records=10, within_seconds=60.0) == []
    assert not event.acked


async def test_cancelling_the_agent_closes_the_stream() -> None:
    stream = Stream()
    task = asyncio.ensure_future(collect(stream, max_records=10, within_seconds=60.0))
    await settled()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settled()
    assert stream.closed
