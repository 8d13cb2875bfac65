"""Events per second of a Faust agent behind the batch transport, beside a plain Faust agent on the same events.

    python -m bench.transport --events 100000 --repeats 3

Both fold the same JSON events of a real topic into profiles (the latest 50 signals, about 4 KB) kept in a table with a
changelog, and count until the last profile is stored at the broker. A third row leaves the state out. The last one ends
a worker and starts it anew: how long until the whole state is back.
"""

import random
import statistics
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import msgspec
import typer
from kafka import KafkaProducer
from rich.console import Console
from rich.table import Table

from bench._machine import Machine, this_machine
from bench._transport_worker import PARTITIONS, TABLE, Event, Measured
from keenstream.stack.kafka import kafka_server
from schemas.errors import RetryableError
from stream.transport import TopicSpec, changelog, create_topics

ENGINES = {
    "plain": "plain Faust agent",
    "batch": "batch transport",
    "stateless": "the same, no state",
}
WORKER_TIMEOUT_SECONDS = 600.0

console = Console(highlight=False)


class Row(msgspec.Struct, frozen=True):
    """One engine: events per second of each run."""

    engine: str
    rates: list[float]
    rows_per_event: float
    row_bytes: float


class Restore(msgspec.Struct, frozen=True):
    """A worker started on a full changelog."""

    rows: int
    row_bytes: int
    seconds: float  # from its start to its first batch
    empty_seconds: float  # the same without any state


class Report(msgspec.Struct, frozen=True):
    machine: Machine
    events: int
    users: int
    rows: list[Row]
    restore: Restore


def produce(bootstrap: str, topic: str, events: int, users: int, seed: int = 1) -> None:
    """About 220 bytes each, readers drawn evenly, keyed by reader."""
    draw = random.Random(seed)
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, batch_size=256 * 1024)
    for number in range(events):
        user = f"reader-{draw.randrange(users):06d}"
        event = Event(
            event_id=str(uuid.UUID(int=draw.getrandbits(128))),
            user_id=user,
            kind=draw.choice(("page", "search", "click")),
            text=f"{draw.getrandbits(160):040x} words of a title",
            occurred_at=1_700_000_000_000 + number,
        )
        producer.send(topic, msgspec.json.encode(event), key=user.encode())
    producer.flush()
    producer.close()


def prepare(bootstrap: str, app_id: str, topic: str) -> None:
    create_topics(bootstrap, [TopicSpec(name=topic, partitions=PARTITIONS), changelog(app_id, TABLE, PARTITIONS)])


def measure(bootstrap: str, engine: str, app_id: str, topic: str, events: int) -> Measured:
    """One worker process from its start until all events are stored."""
    with TemporaryDirectory() as folder:
        arguments = [engine, bootstrap, app_id, topic, str(events), folder]
        worker = [sys.executable, "-m", "bench._transport_worker", *arguments]
        subprocess.run(worker, timeout=WORKER_TIMEOUT_SECONDS, check=False, stderr=subprocess.DEVNULL)
        measured = Path(folder) / "measured.json"
        if not measured.exists():
            raise RetryableError(f"the worker for {engine} ended without a result: is Kafka at {bootstrap} up?")
        return msgspec.json.decode(measured.read_bytes(), type=Measured)


def compare(bootstrap: str, events: int, users: int, repeats: int) -> list[Row]:
    """The engines in turn, so that a noisy moment does not hit one of them only."""
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    found: dict[str, list[Measured]] = {engine: [] for engine in ENGINES}
    prepare(bootstrap, topic, topic)
    produce(bootstrap, topic, events, users)
    for number in range(repeats):
        for engine in ENGINES:
            app_id = f"{topic}-{engine}-{number}"
            prepare(bootstrap, app_id, topic)
            measured = measure(bootstrap, engine, app_id, topic, events)
            console.print(f"{engine}: {measured.events / measured.seconds:,.0f} events/s")
            found[engine].append(measured)
    return [_row(engine, runs) for engine, runs in found.items()]


def _row(engine: str, runs: list[Measured]) -> Row:
    return Row(
        engine=engine,
        rates=[run.events / run.seconds for run in runs],
        rows_per_event=statistics.fmean(run.rows_written / run.events for run in runs),
        row_bytes=statistics.fmean(run.row_bytes for run in runs),
    )


def restore(bootstrap: str, users: int, row_bytes: int) -> Restore:
    """A worker on an empty changelog, and one on a row for each of many readers."""
    topic, full = (f"bench-{uuid.uuid4().hex[:8]}" for _ in range(2))
    prepare(bootstrap, topic, topic)
    prepare(bootstrap, full, topic)
    produce(bootstrap, topic, 1, users)
    fill(bootstrap, changelog(full, TABLE, PARTITIONS).name, users, row_bytes)
    empty = measure(bootstrap, "stateless", topic, topic, 1)
    again = measure(bootstrap, "stateless", full, topic, 1)
    return Restore(
        rows=again.rows_restored, row_bytes=row_bytes, seconds=again.ready_seconds, empty_seconds=empty.ready_seconds
    )


def fill(bootstrap: str, topic: str, users: int, row_bytes: int) -> None:
    draw = random.Random(users)
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, batch_size=256 * 1024)
    for user in range(users):
        producer.send(topic, draw.randbytes(row_bytes), key=f"reader-{user:06d}".encode())
    producer.flush()
    producer.close()


@contextmanager
def broker(bootstrap: str) -> Iterator[str]:
    """The given broker, or one for the length of the benchmark."""
    with nullcontext() if bootstrap else TemporaryDirectory() as folder:
        if bootstrap:
            yield bootstrap
            return
        with kafka_server(str(folder)) as server:
            yield server.bootstrap


def show(report: Report) -> None:
    console.print(f"{report.events:,} events of {report.users:,} readers, {PARTITIONS} partitions, one process")
    table = Table("engine", "events/s", "min–max", "rows/event", "bytes/row")
    for row in report.rows:
        spread = f"{min(row.rates):,.0f}–{max(row.rates):,.0f}"
        cells = (f"{statistics.median(row.rates):,.0f}", spread, f"{row.rows_per_event:.2f}", f"{row.row_bytes:,.0f}")
        table.add_row(ENGINES[row.engine], *cells)
    console.print(table)
    back = report.restore
    console.print(
        f"restart: {back.rows:,} rows of {back.row_bytes:,.0f} bytes were back and the first batch there in "
        f"{back.seconds:.1f} s (an empty start takes {back.empty_seconds:.1f} s)"
    )


def run(
    events: Annotated[int, typer.Option(min=1000, help="Events to fold.")] = 100_000,
    users: Annotated[int, typer.Option(min=1, help="Readers that they belong to.")] = 5_000,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each engine.")] = 3,
    restore_users: Annotated[int, typer.Option(min=1, help="Readers in the state that is restored.")] = 100_000,
    restore_bytes: Annotated[int, typer.Option(min=1, help="Size of each of their rows.")] = 2_000,
    bootstrap: Annotated[str, typer.Option(help="host:port; without it a broker is started.")] = "",
    json_path: Annotated[Path | None, typer.Option("--json", help="Also write the report there.")] = None,
) -> None:
    """Compare the batch transport with a plain Faust agent. Example: `keenstream bench transport --events 100000`"""
    with broker(bootstrap) as address:
        rows = compare(address, events, users, repeats)
        report = Report(this_machine(), events, users, rows, restore(address, restore_users, restore_bytes))
    show(report)
    if json_path is not None:
        json_path.write_bytes(msgspec.json.format(msgspec.json.encode(report)))


if __name__ == "__main__":
    typer.run(run)
