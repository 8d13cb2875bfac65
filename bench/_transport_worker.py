"""One engine of `bench.transport`, in a process of its own: folds a topic and writes what it measured as JSON.

python -m bench._transport_worker ENGINE BOOTSTRAP APP TOPIC EVENTS FOLDER
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import faust
import msgspec

from stream.transport import StateTable, WorkerSettings, batches, create_app, run_worker

PARTITIONS = 4
TABLE = "profiles"
SIGNALS = 50
FLUSH_RECORDS = 20_000
FLUSH_SECONDS = 0.5


class Signal(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a profile keeps of an event."""

    occurred_at: int
    event_id: str
    kind: str
    text: str


class Event(msgspec.Struct, frozen=True, gc=False):
    event_id: str
    user_id: str
    kind: str
    text: str
    occurred_at: int


class Measured(msgspec.Struct, frozen=True):
    """Seconds from the end of the rebalance (nothing is fetched before) until the last event's state is stored."""

    events: int
    seconds: float
    rows_written: int
    row_bytes: float
    ready_seconds: float  # from the start of the process to the first batch
    rows_restored: int


_events = msgspec.json.Decoder(Event)
_profiles = msgspec.json.Decoder(list[Signal])
_encode = msgspec.json.Encoder().encode


def folded(old: bytes | None, values: Iterable[bytes]) -> bytes:
    """The latest distinct signals of a profile."""
    signals = set(_profiles.decode(old)) if old else set()
    for value in values:
        event = _events.decode(value)
        signals.add(Signal(event.occurred_at, event.event_id, event.kind, event.text))
    return _encode(sorted(signals, key=_newest_first)[:SIGNALS])


def _newest_first(signal: Signal) -> tuple[int, str]:
    return -signal.occurred_at, signal.event_id


class Meter:
    """Counts until all events are there, then ends the process as an operator would: by SIGTERM."""

    def __init__(self, wanted: int, folder: Path) -> None:
        self.begun = time.perf_counter()
        self._wanted, self._folder = wanted, folder
        self._events = self._rows = self._bytes = self._restored = 0
        self._assigned = self._first = 0.0

    def watch(self, app: Any) -> None:
        @app.on_rebalance_complete.connect  # type: ignore[untyped-decorator]
        async def assigned(*_: Any, **__: Any) -> None:
            self._assigned = self._assigned or time.perf_counter()

    def arrived(self, restored: int = 0) -> None:
        if not self._first:
            self._first, self._restored = time.perf_counter(), restored

    def stored(self, events: int, rows: Iterable[bytes]) -> None:
        self._events += events
        for row in rows:
            self._rows += 1
            self._bytes += len(row)
        if self.complete():
            self.finish()

    def complete(self) -> bool:
        return self._events >= self._wanted

    def finish(self) -> None:
        now = time.perf_counter()
        measured = Measured(
            events=self._events,
            seconds=now - self._assigned,
            rows_written=self._rows,
            row_bytes=self._bytes / max(1, self._rows),
            ready_seconds=self._first - self.begun,
            rows_restored=self._restored,
        )
        (self._folder / "measured.json").write_bytes(_encode(measured))
        os.kill(os.getpid(), signal.SIGTERM)


def plain_app(bootstrap: str, app_id: str, topic: str, meter: Meter, folder: Path) -> Any:
    """Faust as it comes: a table write for each event."""
    app = faust.App(
        app_id,
        broker=f"kafka://{bootstrap}",
        datadir=str(folder),
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
    )
    table = app.Table(TABLE, partitions=PARTITIONS, key_type=bytes, value_type=bytes)
    meter.watch(app)

    @app.agent(app.topic(topic, key_serializer="raw", value_serializer="raw"))  # type: ignore[untyped-decorator]
    async def agent(stream: Any) -> None:
        async for event in stream.events():
            meter.arrived()
            row = folded(table.get(event.key), [event.value])
            table[event.key] = row
            meter.stored(1, [row])

    return app


def batch_app(bootstrap: str, app_id: str, topic: str, meter: Meter, folder: Path, *, state: bool) -> Any:
    """The batch transport: with state, each touched profile is written once for each flush and awaited."""
    app = create_app(app_id, bootstrap, data_folder=folder, settings=WorkerSettings(session_timeout_seconds=6.0))
    table = app.state_table(TABLE, PARTITIONS)
    meter.watch(app)

    @app.run_agent(topic)
    async def agent(stream: Any) -> None:
        async for batch in batches(stream, max_records=FLUSH_RECORDS, within_seconds=FLUSH_SECONDS):
            meter.arrived(len(table.data))
            if not state:
                for record in batch.records:
                    _events.decode(record.value or b"")
                meter.stored(len(batch), [])
                continue
            rows = {partition: _fold_all(table, partition, found) for partition, found in batch.by_partition().items()}
            await table.write(rows)
            meter.stored(len(batch), (row for changes in rows.values() for row in changes.values()))

    return app


def _fold_all(table: StateTable, partition: int, records: Iterable[Any]) -> dict[bytes, bytes]:
    by_user: dict[bytes, list[bytes]] = {}
    for record in records:
        by_user.setdefault(record.key, []).append(record.value)
    return {key: folded(table.row(partition, key), values) for key, values in by_user.items()}


def main(arguments: list[str]) -> int:
    engine, bootstrap, app_id, topic, events, folder = arguments
    logging.basicConfig(level="CRITICAL")
    meter = Meter(int(events), Path(folder))
    if engine == "plain":
        app = plain_app(bootstrap, app_id, topic, meter, Path(folder))
        app.Worker(quiet=True, loglevel="CRITICAL").execute_from_commandline()
    build: Callable[..., Any] = batch_app
    return run_worker(build(bootstrap, app_id, topic, meter, Path(folder), state=engine != "stateless"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
