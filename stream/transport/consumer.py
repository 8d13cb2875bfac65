"""Faust's aiokafka consumer, with runs for the topics that opted in.

Everything else keeps the ordinary path. Where the base class is worked around, the reason stands at the place.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from faust.transport.drivers import aiokafka as driver
from faust.types.tuples import TP

from schemas.errors import UsageError
from stream.transport.ledger import DeliveredRuns
from stream.transport.record import RunMessage, RunSchema, to_records
from stream.transport.table import StateTable
from stream.transport.watchdog import Progress


class Mark(NamedTuple):
    """The world in which a fetch was asked for; records of another world are not delivered."""

    generation: int
    seeks: int


class Fetch(NamedTuple):
    task: "asyncio.Task[Mapping[Any, list[Any]]]"
    mark: Mark


class Fetched(NamedTuple):
    tp: TP
    records: list[Any]
    mark: Mark


class ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]  # faust is untyped here
    """Reads only committed records, and leaves the group only when the app has finished what is in hand."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._rebalance: asyncio.Task[Any] | None = None
        self._leaving = False
        super().__init__(*args, **kwargs)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await self._held(super().on_partitions_revoked(revoked))

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        await self._held(super().on_partitions_assigned(assigned, generation_id))

    async def _held(self, answer: Awaitable[None]) -> None:
        """Faust's part of a rebalance, and no way back into the group for an app that is stopping.

        Its partitions would go to others while it still commits what it has in hand.
        """
        self._rebalance = asyncio.current_task()
        try:
            await answer
            if self.app.should_stop and not self._leaving:
                await asyncio.Event().wait()  # until `on_thread_stop`
        finally:
            self._rebalance = None

    async def on_thread_stop(self) -> None:
        self._leaving = True
        if (rebalance := self._rebalance) is not None:
            rebalance.cancel()  # the client waits for its end before it leaves the group
            await asyncio.wait([rebalance])
        await super().on_thread_stop()

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # an aborted transaction is not an event; Faust ties this to exactly-once, and aiokafka reads it in start()
        consumer._isolation_level = "read_committed"
        return consumer

    def progress(self, tp: TP) -> tuple[int, int] | None:
        """The next offset to fetch and the end of the partition, as far as the consumer knows them."""
        subscription = self._ensure_consumer()._subscription.subscription
        assignment = subscription.assignment if subscription is not None else None
        if assignment is None or tp not in assignment.tps:
            return None
        state = assignment.state_value(driver.ensure_aiokafka_TP(tp))
        end = state.lso if state.lso is not None else state.highwater
        return None if end is None or not state.has_valid_position else (state.position, end)


class Consumer(driver.Consumer):  # type: ignore[misc]  # faust is untyped here
    """One message for a run of consecutive records; commits never pass a run that is not acked."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._runs: DeliveredRuns[TP] = DeliveredRuns()
        self._run_topics: frozenset[str] = frozenset()
        self._fetch: Fetch | None = None
        self._fetched: deque[Fetched] = deque()
        self._failed_commits: dict[TP, int] = {}
        self._seeks = 0
        self._seeking = asyncio.Lock()
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # -- fetching and delivering

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """Yield ordinary messages; hand over runs on the way, past the loop that costs 70 µs for each message."""
        async for item in super().getmany(timeout):
            yield item
        await self._deliver_runs()

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Mapping[Any, list[Any]]:
        if self._fetch is None:
            async with self._seeking:
                task = asyncio.ensure_future(super()._getmany(active_partitions, timeout))
                self._fetch = Fetch(task, self._mark())
        fetch = self._fetch
        try:
            records = await asyncio.shield(fetch.task)
        except asyncio.CancelledError:
            # The fetch goes on in the consumer's thread and moves the position: the next call takes its records.
            if fetch.task.cancelled():
                self._fetch = None
            raise
        except BaseException:
            self._fetch = None
            raise
        self._fetch = None
        return self._split(records, fetch.mark)

    def _mark(self) -> Mark:
        return Mark(self.app.consumer_generation_id, self._seeks)

    def _split(self, records: Mapping[Any, list[Any]], mark: Mark) -> dict[Any, list[Any]]:
        """Keep the runs, restore state rows at once, and return what takes the ordinary path."""
        ordinary: dict[Any, list[Any]] = {}
        for key, found in records.items():
            tp = TP(key.topic, key.partition)
            if tp.topic in self._run_topics:
                self._runs.began(tp, found[0].offset)
                self._fetched.append(Fetched(tp, found, mark))
            elif (table := self._state_table(tp)) is None:
                ordinary[key] = found
            elif mark.generation == self.app.consumer_generation_id:
                # The last row alone goes through Faust's recovery, which only needs to see how far it is.
                table.restore(tp, found)
                ordinary[key] = found[-1:]
        return ordinary

    def _state_table(self, tp: TP) -> StateTable | None:
        table = self.app.tables._changelogs.get(tp.topic)
        return table if isinstance(table, StateTable) else None

    async def _deliver_runs(self) -> None:
        # At the end of a rebalance Faust resumes partitions and only then seeks: what is fetched in between waits here,
        # and its mark throws it away after the seek; delivered, it would come twice.
        while self._fetched and self.app.tables.actives_ready and self.flow_active and not self.should_stop:
            tp, found, mark = self._fetched.popleft()
            if mark != self._mark():
                continue  # a seek to the committed offset followed, or is about to: these are fetched again
            self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
            run = self._runs.deliver(tp, found[0].offset, found[-1].offset)
            message = RunMessage(tp, run, to_records(found), mark.generation)
            await self.wait_first(self.callback(message), self.suspend_flow.wait())

    # -- seeking

    async def perform_seek(self) -> None:
        """Back to the committed offsets, with no fetch under way whose records would be taken for newer ones."""
        async with self._seeking:
            self._seeks += 1
            await self._fetch_ended()
            await super().perform_seek()
            self._runs.rewind()
            await self._seek_uncommitted()

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Faust's recovery goes to where a changelog is read from.

        A fetch that was asked for before a rebalance can still take rows from the new position (it looks at the live
        set of partitions), and they would be dropped with their mark: the recovery would wait for them for ever.
        """
        async with self._seeking:
            await self._fetch_ended()
            await super().seek_wait(partitions)

    async def _fetch_ended(self) -> None:
        if self._fetch is not None:
            await asyncio.wait([self._fetch.task])

    async def _seek_uncommitted(self) -> None:
        # aiokafka leaves the position alone where nothing is committed, so what was fetched and dropped would be lost
        for tp in self._runs.keys() & self.assignment():
            origin = self._runs.origin(tp)
            if not self._committed_offset[tp] and origin is not None:
                await self._thread.seek_wait({driver.ensure_aiokafka_TP(tp): origin})

    # -- committing

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        tps = {*self._acked, *self._runs.keys(), *self._failed_commits}
        return (tp for tp in tps if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        if tp.topic not in self._run_topics:
            offset: int | None = super()._new_offset(tp)
            return offset
        # filled by Faust's own ack; for runs the ledger knows better
        self._acked.pop(tp, None)
        self._acked_index.pop(tp, None)
        return self._runs.safe(tp)

    def _filter_committable_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        wanted = list(tps)
        offsets: dict[TP, int] = super()._filter_committable_offsets(wanted)
        for tp in self._failed_commits.keys() & set(wanted):
            offsets[tp] = max(self._failed_commits[tp], offsets.get(tp, 0))
        return offsets

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        """Commit, and remember a commit that failed: Faust 0.15.3 takes it for done."""
        done = False
        try:
            done = await super()._commit_offsets(offsets, start_new_transaction)
        finally:
            held = self.assignment()
            for tp, offset in offsets.items():
                if done or tp not in held:
                    self._failed_commits.pop(tp, None)
                else:
                    self._failed_commits[tp] = offset
        return bool(done)

    async def wait_empty(self) -> None:
        """Finish what is in hand and commit it, also when a commit of less than that is under way."""
        await super().wait_empty()
        await self.maybe_wait_for_commit_to_finish()
        await self.commit()

    # -- rebalancing

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        # The base class waits for what is in hand and commits it, so the runs must stay known until it returns.
        await super().on_partitions_revoked(revoked)
        self._failed_commits.clear()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self._runs.drop(self._runs.keys() - assigned)
        self._failed_commits.clear()
        try:
            self._run_topics = run_topics(self.app.topics)
        except UsageError as error:
            await self.crash(error)
        await super().on_partitions_assigned(assigned, generation_id)

    # -- watching

    def progress(self) -> dict[TP, Progress]:
        """For each partition with runs: is anything waiting, and how far is it committed."""
        found: dict[TP, Progress] = {}
        for tp in self.assignment():
            if tp.topic not in self._run_topics or tp in self._paused_partitions:
                continue
            at = self._thread.progress(tp)
            waiting = self._runs.unfinished(tp) > 0 or tp in self._failed_commits or (at is not None and at[0] < at[1])
            found[tp] = Progress(self._committed_offset[tp], waiting)
        return found


def run_topics(topics: Iterable[Any]) -> frozenset[str]:
    """The names of the topics that opted in by their schema."""
    by_kind: dict[bool, set[str]] = {True: set(), False: set()}
    for topic in topics:
        by_kind[isinstance(topic.schema, RunSchema)].update(topic.topics)
    both = by_kind[True] & by_kind[False]
    if both:
        raise UsageError(f"{sorted(both)}: one agent asks for runs and another for single records; give both RunSchema")
    return frozenset(by_kind[True])
