"""A worker that writes down what it is given and keeps the ids of each key as state; tests run it and kill it.

python -m tests.stream.transport.worker_program BOOTSTRAP APP GIVEN SESSION_SECONDS MODE TOPIC...
"""

import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import faust
import msgspec

from stream.transport import Record, StateTable, Transport, WorkerSettings, batches, create_app, run_worker
from stream.transport.app import App
from stream.transport.consumer import Consumer

PARTITIONS = 4
TABLE = "ids"
SETTINGS = WorkerSettings(commit_interval_seconds=0.3, run_records=200, stall_seconds=60.0, shutdown_seconds=45.0)
STALL_SECONDS = 5.0  # of the modes that watch for it
Agent = Callable[[Any], Awaitable[None]]


def line(record: Any) -> str:
    value = "-" if record.value is None else record.value.decode()
    key = "-" if record.key is None else record.key.decode()
    headers = ",".join(f"{name}={text.decode()}" for name, text in record.headers)
    return f"{record.topic} {record.partition} {record.offset} {key} {value} {headers}\n"


class Log:
    """Appends whole lines; what is written survives a SIGKILL."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, records: Iterable[Any]) -> None:
        os.write(self._file, "".join(map(line, records)).encode())


def with_ids(old: bytes | None, records: Iterable[Record]) -> bytes:
    """The merge of these tests: the sorted distinct values of a key. Records seen twice change nothing."""
    ids = set((old or b"").split()) | {r.value for r in records if r.value is not None}
    return b" ".join(sorted(ids))


def folding(log: Log, table: StateTable) -> Agent:
    async def agent(stream: Any) -> None:
        async for batch in batches(stream, max_records=500, within_seconds=0.1):
            log.write(batch.records)
            rows: dict[int, dict[bytes, bytes | None]] = {}
            for record in batch.records:
                held = rows.setdefault(record.partition, {})
                key = record.key or b""
                held[key] = with_ids(held.get(key) or table.row(record.partition, key), [record])
            await table.write(rows)

    return agent


def slow(log: Log) -> Agent:
    """Every batch takes a while."""

    async def agent(stream: Any) -> None:
        async for batch in batches(stream, max_records=500, within_seconds=0.1):
            log.write(batch.records)
            await asyncio.sleep(3.0)

    return agent


def passing(log: Log) -> Agent:
    async def agent(stream: Any) -> None:
        async for batch in batches(stream, max_records=500, within_seconds=0.1):
            log.write(batch.records)

    return agent


def failing(log: Log) -> Agent:
    async def agent(stream: Any) -> None:
        async for batch in batches(stream, max_records=500, within_seconds=0.1):
            log.write(batch.records)
            raise RuntimeError("the body fails")

    return agent


def holding_first(log: Log) -> Agent:
    """Never acknowledges the first run of each partition, and every later one at once."""

    async def agent(stream: Any) -> None:
        stream.enable_acks = False
        held: dict[int, Any] = {}
        async for event in stream.events():
            log.write(event.value)
            if held.setdefault(event.message.partition, event) is not event:
                event.ack()

    return agent


def slow_first(log: Log) -> Agent:
    """Acknowledged by Faust's own stream; the run with the first record of partition 0 takes for ever."""

    async def agent(stream: Any) -> None:
        async for records in stream:
            log.write(records)
            if any((record.partition, record.offset) == (0, 0) for record in records):
                await asyncio.sleep(3600)

    return agent


def pausing(app: App, log: Log) -> Agent:
    """Pauses and resumes its partitions after every run."""

    async def agent(stream: Any) -> None:
        stream.enable_acks = False
        async for event in stream.events():
            tps = {tp for tp in app.consumer.assignment() if tp.topic == event.message.topic}
            app.consumer.pause_partitions(tps)
            await asyncio.sleep(0.02)
            log.write(event.value)
            app.consumer.resume_partitions(tps)
            event.ack()

    return agent


class ForgetfulConsumer(Consumer):
    """The broker refuses the first commits."""

    refused = 0

    async def _commit(self, offsets: Any) -> bool:
        if self.refused < 3:
            self.refused += 1
            return False
        return bool(await super()._commit(offsets))


class ForgetfulTransport(Transport):
    Consumer = ForgetfulConsumer


def plain(bootstrap: str, app_id: str, log: Log, topics: list[str], folder: Path) -> Any:
    """Faust as it comes, for comparison."""
    app = faust.App(
        app_id,
        broker=f"kafka://{bootstrap}",
        datadir=str(folder),
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=0.3,
    )

    @app.agent(app.topic(*topics, key_serializer="raw", value_serializer="raw", allow_empty=True))  # type: ignore[untyped-decorator]
    async def agent(stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            log.write([message])

    return app


def settings_of(mode: str, session_seconds: float) -> WorkerSettings:
    changes: dict[str, float] = {"session_timeout_seconds": session_seconds}
    if mode in ("stalls", "watched"):
        changes["stall_seconds"] = STALL_SECONDS
    if mode == "late":
        changes["recovery_seconds"] = 0.1
    return msgspec.structs.replace(SETTINGS, **changes)


def build(
    mode: str, bootstrap: str, app_id: str, log: Log, topics: list[str], folder: Path, settings: WorkerSettings
) -> App:
    app = create_app(app_id, bootstrap, data_folder=folder, settings=settings)
    if mode == "bare":
        app.run_agent(*topics)(passing(log))
        return app
    table = app.state_table(TABLE, PARTITIONS)  # in every mode: an app without tables joins with another assignor
    if mode in ("fold", "forgetful", "watched"):
        if mode == "forgetful":
            app.transport = ForgetfulTransport(app.conf.broker_consumer, app)
        app.run_agent(*topics)(folding(log, table))
    elif mode in ("slow", "stalls"):
        app.agent(app.run_topic(*topics), concurrency=4)(slow_first(log))
    else:
        agents = {
            "hold": holding_first(log),
            "fail": failing(log),
            "pause": pausing(app, log),
            "late": failing(log),
            "lasting": slow(log),
        }
        app.run_agent(*topics)(agents[mode])
    return app


def main(arguments: list[str]) -> int:
    bootstrap, app_id, path, session_seconds, mode, *topics = arguments
    logging.basicConfig(level=os.environ.get("WORKER_LOG_LEVEL", "WARNING"), format="%(asctime)s %(name)s: %(message)s")
    log = Log(Path(path))
    with tempfile.TemporaryDirectory() as folder:
        if mode == "plain":
            plain(bootstrap, app_id, log, topics, Path(folder)).Worker(
                quiet=True, loglevel="ERROR"
            ).execute_from_commandline()
        settings = settings_of(mode, float(session_seconds))
        return run_worker(build(mode, bootstrap, app_id, log, topics, Path(folder), settings))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
