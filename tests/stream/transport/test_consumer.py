"""The consumer's races, step by step, with a double of the client's thread."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord, TopicPartition
from faust.types.tuples import TP
from mode import Service

from schemas.errors import UsageError
from stream.transport import Record, create_app
from stream.transport.consumer import Consumer, run_topics

EVENTS = TP("events", 0)
OTHER = TP("other", 0)
CHANGELOG = TP("rig-t-changelog", 0)


def record(offset: int, tp: TP = EVENTS) -> Any:
    return ConsumerRecord(tp.topic, tp.partition, offset, 1_000, 0, b"k", b"v%d" % offset, None, 1, 2, ())


class Thread(Service):  # type: ignore[misc]  # mode is untyped here
    """Holds a log of one partition; a fetch takes what is there, and `hold` delays its answer."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Any] = []
        self.position = 0
        self.at_broker: dict[TP, int | None] = {EVENTS: None}
        self.refuse = 0
        self.held = asyncio.Event()
        self.held.set()
        self.extra: dict[Any, list[Any]] = {}

    async def getmany(self, active: Any, timeout: float) -> Mapping[Any, list[Any]]:
        found = [entry for entry in self.log if entry.offset >= self.position]
        self.position = found[-1].offset + 1 if found else self.position
        await self.held.wait()
        extra, self.extra = self.extra, {}
        return {**({TopicPartition(*EVENTS): found} if found else {}), **extra}

    async def seek_to_committed(self) -> Mapping[TP, int | None]:
        if committed := self.at_broker[EVENTS]:
            self.position = committed
        return dict(self.at_broker)

    async def seek_wait(self, offsets: Mapping[Any, int]) -> None:
        self.position = offsets[TopicPartition(*EVENTS)]

    async def commit(self, offsets: Mapping[TP, int]) -> bool:
        if self.refuse:
            self.refuse -= 1
            return False
        self.at_broker.update(offsets)
        return True

    def assignment(self) -> set[TP]:
        return {EVENTS, OTHER, CHANGELOG}

    def highwater(self, tp: TP) -> int:
        return len(self.log)

    def progress(self, tp: TP) -> tuple[int, int]:
        return self.position, len(self.log)


class Rig:
    """A consumer of one run topic, its thread, and the messages that it handed over."""

    def __init__(self, folder: Path) -> None:
        self.app = create_app("rig", "127.0.0.1:1", data_folder=folder)
        self.app.topics.add(self.app.run_topic(EVENTS.topic))
        self.app.topics._acking_topics.add(EVENTS.topic)
        self.thread = Thread()
        self.delivered: list[Any] = []
        self.consumer = self._consumer()
        self.app._consumer = self.consumer

    def _consumer(self) -> Consumer:
        thread = self.thread

        class Doubled(Consumer):
            def _new_consumer_thread(self) -> Any:
                return thread

        async def nothing(*_: Any) -> None: ...

        return Doubled(
            self.app.transport,
            callback=self._take,
            on_partitions_revoked=nothing,
            on_partitions_assigned=nothing,
        )

    async def _take(self, message: Any) -> None:
        message.incref(1)
        self.delivered.append(message)

    async def assign(self, generation: int = 1) -> None:
        self.app.consumer_generation_id = generation
        self.app.on_rebalance_start()
        await self.consumer.on_partitions_assigned({EVENTS, OTHER, CHANGELOG}, generation)

    async def poll(self) -> list[tuple[TP, Any]]:
        return [item async for item in self.consumer.getmany(timeout=0.1)]

    def offsets(self) -> list[list[int]]:
        return [[entry.offset for entry in message.value] for message in self.delivered]

    def ack(self, index: int) -> None:
        self.delivered[index].ack(self.consumer)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    made.app.producer.flush = _nothing  # nothing is sent
    await made.assign()
    made.app.tables.on_actives_ready()
    made.consumer.resume_flow()
    yield made


async def _nothing(*_: Any) -> None: ...


async def settled() -> None:
    """Every task is as far as it gets."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_a_fetch_of_one_partition_is_one_message_of_records(rig: Rig) -> None:
    rig.thread.log = [record(0), record(4), record(9)]
    assert await rig.poll() == []
    [message] = rig.delivered
    assert message.offset == 9
    assert message.value[1] == Record("events", 0, 4, 1_000, b"k", b"v4", ())


async def test_other_topics_keep_the_ordinary_path(rig: Rig) -> None:
    rig.thread.extra = {TopicPartition(*OTHER): [record(3, OTHER), record(4, OTHER)]}
    assert [(tp, message.offset) for tp, message in await rig.poll()] == [(OTHER, 3), (OTHER, 4)]
    assert rig.delivered == []


async def test_commits_follow_the_acknowledged_prefix(rig: Rig) -> None:
    for offset in (0, 7, 30):
        rig.thread.log.append(record(offset))
        await rig.poll()
    rig.ack(1)
    assert not await rig.consumer.commit()
    rig.ack(0)
    assert await rig.consumer.commit()
    assert rig.thread.at_broker[EVENTS] == 8


async def test_a_refused_commit_is_sent_again(rig: Rig) -> None:
    rig.thread.log, rig.thread.refuse = [record(0)], 1
    await rig.poll()
    rig.ack(0)
    assert not await rig.consumer.commit()
    assert rig.consumer.progress()[EVENTS].waiting
    assert await rig.consumer.commit()
    assert rig.thread.at_broker[EVENTS] == 1
    assert not await rig.consumer.commit()
    assert not rig.consumer.progress()[EVENTS].waiting


async def test_records_fetched_before_a_seek_are_not_delivered_after_it(rig: Rig) -> None:
    rig.thread.log = [record(n) for n in range(5)]
    rig.thread.held.clear()
    poll = asyncio.ensure_future(rig.poll())
    await settled()
    seek = asyncio.ensure_future(rig.consumer.perform_seek())
    await settled()
    rig.thread.held.set()
    await asyncio.gather(poll, seek)
    assert rig.offsets() == []
    await rig.poll()  # nothing was committed, so the seek goes back to where the fetches began
    assert rig.offsets() == [[0, 1, 2, 3, 4]]


async def test_a_seek_goes_back_to_what_is_committed(rig: Rig) -> None:
    rig.thread.log = [record(n) for n in range(3)]
    await rig.poll()
    rig.ack(0)
    await rig.consumer.commit()
    rig.thread.log += [record(3)]
    await rig.poll()
    await rig.consumer.perform_seek()
    await rig.poll()
    assert rig.offsets() == [[0, 1, 2], [3], [3]]
    rig.ack(2)  # the second copy; the first was lost from a queue
    assert await rig.consumer.commit()
    assert rig.thread.at_broker[EVENTS] == 4


async def test_nothing_is_delivered_before_a_rebalance_is_over(rig: Rig) -> None:
    rig.thread.log = [record(0), record(1)]
    await rig.assign(2)
    await rig.consumer.perform_seek()
    await rig.poll()
    assert rig.offsets() == []
    rig.app.tables.on_actives_ready()
    await rig.poll()  # it waited
    assert rig.offsets() == [[0, 1]]


async def test_what_came_before_the_last_seek_of_a_rebalance_is_delivered_once(rig: Rig) -> None:
    rig.thread.log = [record(0), record(1)]
    await rig.assign(2)
    await rig.poll()
    await rig.consumer.perform_seek()
    rig.app.tables.on_actives_ready()
    await rig.poll()
    assert rig.offsets() == [[0, 1]]


async def test_records_of_an_older_generation_are_dropped(rig: Rig) -> None:
    rig.thread.log = [record(0)]
    rig.thread.held.clear()
    poll = asyncio.ensure_future(rig.poll())
    await settled()
    rig.app.consumer_generation_id = 2
    rig.thread.held.set()
    await poll
    assert rig.offsets() == []


async def test_a_fetch_across_a_rebalance_takes_no_row_that_the_recovery_waits_for(rig: Rig) -> None:
    rig.app.state_table("t", 1)
    rig.thread.held.clear()
    poll = asyncio.ensure_future(rig.poll())
    await settled()
    rig.app.consumer_generation_id = 2
    seek = asyncio.ensure_future(rig.consumer.seek_wait({TopicPartition(*EVENTS): 3}))
    await settled()
    rig.thread.extra = {TopicPartition(*CHANGELOG): [record(0, CHANGELOG)]}  # taken by the old fetch
    rig.thread.held.set()
    assert await poll == []
    await seek
    assert rig.thread.position == 3  # so that the next fetch brings what the old one dropped


async def test_rows_of_a_changelog_are_restored_at_once_and_the_last_one_shows_how_far(rig: Rig) -> None:
    table = rig.app.state_table("t", 1)
    rig.thread.extra = {TopicPartition(*CHANGELOG): [record(n, CHANGELOG) for n in range(3)]}
    assert [(tp, message.offset) for tp, message in await rig.poll()] == [(CHANGELOG, 2)]
    assert table.row(0, b"k") == b"v2"


async def test_a_cancelled_fetch_leaves_its_records_to_the_next(rig: Rig) -> None:
    rig.thread.log = [record(0)]
    rig.thread.held.clear()
    poll = asyncio.ensure_future(rig.poll())
    await settled()
    poll.cancel()
    with pytest.raises(asyncio.CancelledError):
        await poll
    rig.thread.held.set()
    await rig.poll()
    assert rig.offsets() == [[0]]


async def test_a_lost_partition_is_not_committed_by_late_acknowledgements(rig: Rig) -> None:
    rig.thread.log = [record(0)]
    await rig.poll()
    await rig.consumer.on_partitions_assigned(set(), 2)
    rig.ack(0)
    assert not await rig.consumer.commit()
    assert rig.thread.at_broker[EVENTS] is None


async def test_what_is_acknowledged_while_partitions_are_revoked_is_committed(rig: Rig) -> None:
    rig.thread.log = [record(0), record(1)]
    await rig.poll()

    async def finish_and_commit(revoked: set[TP]) -> None:  # what Faust's app does here
        rig.ack(0)
        await rig.consumer.commit()

    rig.consumer._on_partitions_revoked = finish_and_commit
    await rig.consumer.on_partitions_revoked({EVENTS})
    assert rig.thread.at_broker[EVENTS] == 2


def test_a_topic_cannot_be_read_in_both_ways(tmp_path: Path) -> None:
    app = create_app("both", "127.0.0.1:1", data_folder=tmp_path)
    assert run_topics([app.run_topic("a", "b"), app.topic("c")]) == {"a", "b"}
    with pytest.raises(UsageError, match="RunSchema"):
        run_topics([app.run_topic("a"), app.topic("a")])
