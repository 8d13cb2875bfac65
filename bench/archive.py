"""Records per second from a broker to Parquet: our archive worker beside a plain script, and the client alone.

    keenstream bench archive --records 400000

Real Kafka, 4 partitions, events in the topic before anything starts. The worker is measured from its first records
until it has written all and ended; the files are then proved against the broker, and one reader is taken out of them.
The plain script writes one file per day and 100,000 records, without a check of any kind; `client alone` reads the
records and drops them, which is the most that a consumer can do with this client.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from bench._machine import Machine, this_machine
from bench._worker import Worker, worker
from keenstream.stack.kafka import kafka_server
from offline.simulate import EVENTS_FILE, SimulationSettings, write_simulation
from schemas.config import Archive, Config, Kafka
from schemas.errors import KeenstreamError
from schemas.names import Topic
from stream.archive.erasing import erase_from_archive, find_in_archive
from stream.archive.verifying import verify_archive
from stream.producer import KafkaProducer, Outgoing
from stream.topics import all_topics
from stream.transport import create_topics

SIMULATED = 50_000  # events; a longer run sends them several times
EVENTS_PER_READER = 20.0
LATEST_MS = 10**14 - 1
TIMEOUT_SECONDS = 300.0

console = Console(highlight=False, stderr=True)
output = Console(highlight=False)
Rows = Sequence[tuple[bytes, bytes]]  # key, value


class ArchiveReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured."""

    machine: Machine
    records: int
    record_bytes: float
    archive_per_second: float
    plain_per_second: float
    client_per_second: float
    ratio: float  # ours to the plain script's
    files: int
    file_megabytes: float
    proved: bool
    erased_rows: int
    erased_files: int
    erase_seconds: float  # of one reader, all files
    find_seconds: float  # the same by reading the column of readers of every file


def main(
    records: Annotated[int, typer.Option(min=1_000, help="How many.")] = 400_000,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file too.")] = None,
) -> None:
    """Measure the archive. Example: `keenstream bench archive --records 400000`"""
    with TemporaryDirectory(prefix="keenstream-bench-") as scratch:
        report = measure(Path(scratch), records)
    table = Table(
        "", "records/s", title=f"Archive, {report.records:,} records of {report.record_bytes:.0f} B, real Kafka"
    )
    table.add_row("keenstream archive worker", f"{report.archive_per_second:,.0f}")
    table.add_row("plain script (json, from_pylist)", f"{report.plain_per_second:,.0f}")
    table.add_row("ratio", f"{report.ratio:.1f}")
    table.add_row("client alone (reads and drops)", f"{report.client_per_second:,.0f}")
    output.print(table)
    output.print(f"{report.files} files, {report.file_megabytes:.1f} MB: {'proved' if report.proved else 'BROKEN'}")
    output.print(
        f"one reader: {report.erased_rows} rows out of {report.erased_files} files in {report.erase_seconds:.2f} s; "
        f"looked for in all files in {report.find_seconds:.2f} s"
    )
    if json:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))


def measure(scratch: Path, records: int) -> ArchiveReport:
    """All of them on one broker, one after the other."""
    rows = _events(scratch / "world", records)
    folder = scratch / "archive"
    with kafka_server(scratch / "kafka") as server:
        config = Config(
            kafka=Kafka(bootstrap=server.bootstrap),
            archive=Archive(folder=str(folder), roll_records=50_000),
        )
        create_topics(server.bootstrap, all_topics(config))
        console.print(f"sending {records:,} records")
        asyncio.run(_send(config, rows, records))
        client = _plain(config, scratch / "plain", records, "drop")
        plain = _plain(config, scratch / "plain", records, "archive")
        with worker("archive", config, scratch) as ours:
            rate = _rate(ours, records)
        proofs = verify_archive(folder, config)
    files = list(folder.rglob("*.parquet"))
    reader = rows[0][0].decode()
    started = time.perf_counter()
    find_in_archive(folder, reader)
    found = time.perf_counter()
    erased = erase_from_archive(folder, reader, LATEST_MS)
    return ArchiveReport(
        machine=this_machine(),
        records=records,
        record_bytes=sum(len(value) for _, value in rows) / len(rows),
        archive_per_second=rate,
        plain_per_second=plain,
        client_per_second=client,
        ratio=rate / plain,
        files=len(files),
        file_megabytes=sum(path.stat().st_size for path in files) / 1e6,
        proved=not any(proof.faults for proof in proofs) and sum(proof.rows for proof in proofs) == records,
        erased_rows=sum(row.rows for row in erased),
        erased_files=len(erased),
        erase_seconds=time.perf_counter() - found,
        find_seconds=found - started,
    )


def _events(folder: Path, count: int) -> Rows:
    console.print("simulating readers")
    simulated = min(count, SIMULATED)
    settings = SimulationSettings(
        readers=round(simulated / EVENTS_PER_READER), events_per_reader=EVENTS_PER_READER,
        start_ms=int(time.time() * 1000) - 8 * 86_400_000,
    )  # fmt: skip
    write_simulation(folder, settings)
    lines = (line.rstrip() for line in (folder / EVENTS_FILE).read_bytes().splitlines())
    return [(str(msgspec.json.decode(line)["user_id"]).encode(), line) for line in lines][:simulated]


async def _send(config: Config, rows: Rows, count: int) -> None:
    async with KafkaProducer(config.kafka) as producer:
        for first in range(0, count, 2_000):
            some = [rows[number % len(rows)] for number in range(first, min(first + 2_000, count))]
            await producer.send([Outgoing(Topic.USER_EVENTS, key, value) for key, value in some])


def _plain(config: Config, folder: Path, records: int, mode: str) -> float:
    """Records per second of the plain script, a process of its own like the worker."""
    console.print(f"plain script: {mode}")
    arguments = (config.kafka.bootstrap, str(folder), str(config.kafka.partitions), str(records), mode)
    argv = [sys.executable, "-m", "bench._plain_archive", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    if done.returncode:
        raise KeenstreamError(f"the plain script failed:\n{done.stderr[-2_000:]}")
    return records / float(done.stdout)


def _rate(measured: Worker, expected: int) -> float:
    """From the first reading that is not zero, whose records are not counted, to the end of the worker: told to stop
    when it has read everything, it writes what is left."""
    console.print("archive worker")
    began, before = _wait(measured, 1)
    _wait(measured, expected)
    if measured.stop():
        raise KeenstreamError(f"the worker failed:\n{measured.log.read_text()[-2_000:]}")
    return (expected - before) / (time.monotonic() - began)


def _wait(measured: Worker, wanted: int) -> tuple[float, float]:
    """When that many records were read, and how many then were."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while (seen := _read(measured)) < wanted:
        if time.monotonic() > deadline or measured.process.poll() is not None:
            raise KeenstreamError(f"the worker did not get there:\n{measured.log.read_text()[-2_000:]}")
        time.sleep(0.05)
    return time.monotonic(), seen


def _read(measured: Worker) -> float:
    return measured.metric("keenstream_archive_rows_total") + measured.metric("keenstream_archive_in_hand")


if __name__ == "__main__":
    typer.run(main)
