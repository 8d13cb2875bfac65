"""What Avro costs: JSON decode + fold and Avro decode + fold, side by side in one run.

    keenstream bench decode --events 100000

Without a broker: the same simulated events in both formats, through the codecs alone and through the profile worker's
own `ProfileFolder` with its table in memory. Rounds alternate between the formats, so that a slower spell of the
machine meets both; the figures are medians. At the end both tables must be equal byte for byte.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from bench._machine import Machine, this_machine
from offline.simulate import EVENTS_FILE, SimulationSettings, write_simulation
from schemas.avro.published import published
from schemas.codec import EVENTS
from schemas.codecs import JSON_CODECS, Codecs, open_codecs
from schemas.config import Config, Registry
from schemas.errors import KeenstreamError
from schemas.event import Event
from schemas.names import Topic
from stream.producer import MemoryProducer
from stream.profiles.folder import ProfileFolder
from stream.transport.record import Record

EVENTS_PER_READER = 20.0
BATCH = 20_000  # profiles.flush_records

console = Console(highlight=False, stderr=True)
output = Console(highlight=False)


class FormatFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one format; rates are events per second on one core."""

    bytes_per_event: float
    encode_per_second: float
    decode_per_second: float
    fold_per_second: float  # decode + rules + fold + rows encoded


class DecodeReport(msgspec.Struct, frozen=True, kw_only=True):
    machine: Machine
    events: int
    readers: int
    rounds: int
    json: FormatFigures
    avro: FormatFigures
    fold_cost: float  # seconds of Avro's decode + fold for each second of JSON's, median over the rounds
    decode_cost: float


class _Seconds(msgspec.Struct):
    encode: list[float] = msgspec.field(default_factory=list)
    decode: list[float] = msgspec.field(default_factory=list)
    fold: list[float] = msgspec.field(default_factory=list)


class _Table:
    """The profile table without its changelog."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, bytes], bytes] = {}

    def row(self, partition: int, key: bytes) -> bytes | None:
        return self.rows.get((partition, key))

    async def write(self, rows: Mapping[int, Mapping[bytes, bytes]]) -> None:
        for partition, changed in rows.items():
            self.rows.update({(partition, key): value for key, value in changed.items()})


def main(
    events: Annotated[int, typer.Option(min=1_000, help="About how many events.")] = 100_000,
    rounds: Annotated[int, typer.Option(min=1, help="How often each format is measured.")] = 5,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file too.")] = None,
) -> None:
    """Measure both formats. Example: `keenstream bench decode --events 100000`"""
    with TemporaryDirectory(prefix="keenstream-bench-") as scratch:
        report = measure(_events(Path(scratch), events), avro_codecs(), rounds)
    table = Table("events/s", "JSON", "Avro", title=f"{report.events:,} events of {report.readers:,} readers, one core")
    for name, field in (("decode + fold", "fold"), ("decode", "decode"), ("encode", "encode")):
        rates = [getattr(figures, f"{field}_per_second") for figures in (report.json, report.avro)]
        table.add_row(name, *(f"{rate:,.0f}" for rate in rates))
    table.add_row("bytes per event", f"{report.json.bytes_per_event:.0f}", f"{report.avro.bytes_per_event:.0f}")
    output.print(table)
    output.print(
        f"Avro takes {report.fold_cost:.2f} times as long as JSON for decode + fold, "
        f"{report.decode_cost:.2f} times for decoding alone; the profiles are equal"
    )
    if json:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))


def measure(events: Sequence[Event], avro: Codecs, rounds: int) -> DecodeReport:
    """Raises KeenstreamError when the two formats do not lead to the same rows."""
    formats = {"json": JSON_CODECS, "avro": avro}
    seconds = {name: _Seconds() for name in formats}
    encoded: dict[str, list[bytes]] = {}
    tables: dict[str, _Table] = {}
    for number in range(rounds):
        console.print(f"round {number + 1} of {rounds}")
        for name, codecs in formats.items():
            encoded[name], tables[name] = _round(codecs, events, seconds[name])
    if tables["json"].rows != tables["avro"].rows:
        raise KeenstreamError("JSON and Avro gave different profiles")
    return DecodeReport(
        machine=this_machine(),
        events=len(events),
        readers=len(tables["json"].rows),
        rounds=rounds,
        json=_figures(seconds["json"], encoded["json"]),
        avro=_figures(seconds["avro"], encoded["avro"]),
        fold_cost=_cost(seconds["avro"].fold, seconds["json"].fold),
        decode_cost=_cost(seconds["avro"].decode, seconds["json"].decode),
    )


def avro_codecs() -> Codecs:
    """Those of a process that knows its id and so needs no registry."""
    ids = (f"{published(Event.__name__)[-1].label}=1",)
    return open_codecs(Config(registry=Registry(format="avro", ids=ids)), (Topic.USER_EVENTS,))


def _round(codecs: Codecs, events: Sequence[Event], seconds: _Seconds) -> tuple[list[bytes], _Table]:
    encode, decode = codecs.events.encode, codecs.events.decode
    values: list[bytes] = []
    seconds.encode.append(_timed(lambda: values.extend(map(encode, events))))
    seconds.decode.append(_timed(lambda: [decode(value) for value in values]))
    records = [
        Record(Topic.USER_EVENTS, 0, number, event.occurred_at, event.user_id.encode(), value)
        for number, (event, value) in enumerate(zip(events, values, strict=True))
    ]
    table = _Table()
    # query requests stay JSON in both: this is about what comes in
    reading = msgspec.structs.replace(JSON_CODECS, events=codecs.events)
    latest = max(event.occurred_at for event in events)
    folder = ProfileFolder(Config(), table, MemoryProducer(), lambda: latest, reading)
    seconds.fold.append(_timed(lambda: asyncio.run(_fold(folder, records))))
    return values, table


async def _fold(folder: ProfileFolder, records: Sequence[Record]) -> None:
    for first in range(0, len(records), BATCH):
        await folder.process(records[first : first + BATCH])


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _figures(seconds: _Seconds, values: Sequence[bytes]) -> FormatFigures:
    def rate(rounds: Sequence[float]) -> float:
        return len(values) / statistics.median(rounds)

    return FormatFigures(
        bytes_per_event=sum(map(len, values)) / len(values),
        encode_per_second=rate(seconds.encode),
        decode_per_second=rate(seconds.decode),
        fold_per_second=rate(seconds.fold),
    )


def _cost(avro: Sequence[float], json: Sequence[float]) -> float:
    return statistics.median(ours / theirs for ours, theirs in zip(avro, json, strict=True))


def _events(folder: Path, count: int) -> list[Event]:
    console.print("simulating readers")
    settings = SimulationSettings(readers=round(count / EVENTS_PER_READER), events_per_reader=EVENTS_PER_READER)
    write_simulation(folder, settings)
    return list(_read(folder / EVENTS_FILE))[:count]


def _read(path: Path) -> Iterator[Event]:
    with path.open("rb") as lines:
        for line in lines:
            yield EVENTS.decode(line)


if __name__ == "__main__":
    typer.run(main)
