"""Events folded into durable profiles per second: our worker beside a plain Faust agent.

Same events, same broker, same rules.

    keenstream bench fold --events 100000

Real Kafka, 4 partitions, events in the topic before the worker starts; counted from the first folded event to the last,
state acknowledged by the broker. Then the worker is killed with SIGKILL and a new one gets every event once more: all
must be recognised, which they can only be by a state that was restored.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from bench._machine import Machine, this_machine
from bench._plain_agent import APP
from bench._worker import Worker, worker
from keenstream.stack.kafka import kafka_server
from keenstream.stack.ports import free_port
from offline.simulate import EVENTS_FILE, SimulationSettings, write_simulation
from schemas.config import Config, Kafka
from schemas.errors import KeenstreamError, UsageError
from schemas.names import Topic
from stream.producer import KafkaProducer, Outgoing
from stream.topics import all_topics
from stream.transport import changelog, create_topics

EVENTS_PER_READER = 20.0
DONE = ("keenstream_events_folded_total", "keenstream_events_unchanged_total", "keenstream_events_dropped_total")
TIMEOUT_SECONDS = 300.0

console = Console(highlight=False, stderr=True)
output = Console(highlight=False)


class FoldReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured."""

    machine: Machine
    events: int
    readers: int
    event_bytes: float
    ours_per_second: float
    ours_rows_written: int
    plain_per_second: float
    ratio: float
    restored: bool
    restore_seconds: float


def main(
    events: Annotated[int, typer.Option(min=1_000, help="About how many events.")] = 100_000,
    plain_events: Annotated[int, typer.Option(help="How many of them the plain agent gets; it is slow.")] = 30_000,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file too.")] = None,
) -> None:
    """Measure the fold. Example: `keenstream bench fold --events 100000`"""
    with TemporaryDirectory(prefix="keenstream-bench-") as scratch:
        report = measure(Path(scratch), events, plain_events)
    table = Table("", "events/s", title=f"Fold, {report.events:,} events of {report.readers:,} readers, real Kafka")
    table.add_row("keenstream profile worker", f"{report.ours_per_second:,.0f}")
    table.add_row("plain Faust agent and table", f"{report.plain_per_second:,.0f}")
    table.add_row("ratio", f"{report.ratio:.1f}")
    output.print(table)
    output.print(f"state after SIGKILL: {'restored' if report.restored else 'LOST'}, in {report.restore_seconds:.1f} s")
    if json:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))


def measure(scratch: Path, events: int, plain_events: int) -> FoldReport:
    """Both workers on one broker, one after the other."""
    lines = _events(scratch / "world", events)
    with kafka_server(scratch / "kafka") as server:
        config = Config(kafka=Kafka(bootstrap=server.bootstrap, session_timeout_seconds=6.0))
        plain_log = changelog(APP, "profiles", config.kafka.partitions)
        create_topics(server.bootstrap, [*all_topics(config), plain_log])
        asyncio.run(_send(config, lines[:plain_events]))
        with _plain_agent(config, scratch) as plain:
            plain_rate, _ = _rate(plain, min(plain_events, len(lines)), "plain agent")
        asyncio.run(_send(config, lines[plain_events:]))
        with worker("profiles", config, scratch) as ours:
            rate, _ = _rate(ours, len(lines), "keenstream")
            rows = int(ours.metric("keenstream_profiles_written_total"))
            ours.kill()
        restored, seconds = _restored(config, scratch, lines)
    return FoldReport(
        machine=this_machine(),
        events=len(lines),
        readers=len({key for key, _ in lines}),
        event_bytes=sum(len(value) for _, value in lines) / len(lines),
        ours_per_second=rate,
        ours_rows_written=rows,
        plain_per_second=plain_rate,
        ratio=rate / plain_rate,
        restored=restored,
        restore_seconds=seconds,
    )


def _events(folder: Path, count: int) -> list[tuple[bytes, bytes]]:
    console.print("simulating readers")
    settings = SimulationSettings(readers=round(count / EVENTS_PER_READER), events_per_reader=EVENTS_PER_READER)
    write_simulation(folder, settings)
    rows = [(_user(line), line.rstrip()) for line in (folder / EVENTS_FILE).read_bytes().splitlines()]
    return rows[:count]


def _user(line: bytes) -> bytes:
    return str(msgspec.json.decode(line)["user_id"]).encode()


async def _send(config: Config, lines: list[tuple[bytes, bytes]]) -> None:
    async with KafkaProducer(config.kafka) as producer:
        for first in range(0, len(lines), 2_000):
            await producer.send(
                [Outgoing(Topic.USER_EVENTS, key, value) for key, value in lines[first : first + 2_000]]
            )


def _rate(measured: Worker, expected: int, name: str) -> tuple[float, float]:
    """Events per second from the first reading that is not zero to the one that has all; and the last one's time.

    Raises UsageError when there is nothing between the two.
    """
    console.print(f"{name}: {expected:,} events")
    began, before = _wait(lambda: _done(measured) > 0, measured)
    ended, total = _wait(lambda: _done(measured) >= expected, measured)
    if total <= before:
        raise UsageError(f"{name} had folded all {expected:,} events before it was first looked at: take more --events")
    # the first reading may already hold some: they took time before it that is not counted, so they are not either
    return (total - before) / max(1e-9, ended - began), ended


def _done(measured: Worker) -> float:
    return sum(measured.metric(name) for name in DONE)


def _wait(condition: Callable[[], bool], measured: Worker) -> tuple[float, float]:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        if time.monotonic() > deadline or measured.process.poll() is not None:
            raise KeenstreamError(f"{measured.name} did not get there:\n{measured.log.read_text()[-2_000:]}")
        time.sleep(0.02)
    return time.monotonic(), _done(measured)


def _restored(config: Config, scratch: Path, lines: list[tuple[bytes, bytes]]) -> tuple[bool, float]:
    """Whether a worker that starts after the kill knows every event; and the seconds until it processes."""
    asyncio.run(_send(config, lines))
    started = time.monotonic()
    with worker("profiles", config, scratch) as again:
        began, _ = _wait(lambda: _done(again) > 0, again)
        _wait(lambda: _done(again) >= len(lines), again)
        return again.metric("keenstream_events_folded_total") == 0, began - started


@contextmanager
def _plain_agent(config: Config, scratch: Path) -> Iterator[Worker]:
    port, log = free_port(), scratch / "plain.log"
    folder = scratch / "plain"
    argv = [sys.executable, "-m", "bench._plain_agent", config.kafka.bootstrap, str(folder), str(port)]
    with log.open("wb") as written:
        process = subprocess.Popen(argv, stdout=written, stderr=subprocess.STDOUT, env=dict(os.environ))
    try:
        yield Worker("plain agent", process, port, log)
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    typer.run(main)
