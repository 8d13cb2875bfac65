"""`keenstream archive list | verify | replay`."""

from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.table import Table

from keenstream.commands.console import JSON_OPTION, console, count_progress, print_json
from schemas.errors import KeenstreamError, UsageError

if TYPE_CHECKING:  # pyarrow and the Kafka client load when a command runs
    from rich.console import Console

    from stream.archive.verifying import PartitionProof

app = typer.Typer(no_args_is_help=True, help="The topics as Parquet files: what is there, proof of it, replay from it.")


class ArchivedDay(msgspec.Struct, frozen=True, kw_only=True):
    """The files of one topic and day."""

    topic: str
    day: str
    files: int
    rows: int
    size_bytes: int


@app.command("list")
def list_days(
    topic: Annotated[str, typer.Option(help="Only this topic.")] = "",
    as_json: bool = JSON_OPTION,
) -> None:
    """List what is archived, by topic and day.

    Example: `keenstream archive list --topic user-events`
    """
    folder = _folder()
    days = _days(folder, topic)
    if as_json:
        print_json(days)
        return
    table = Table("topic", "day", "files", "rows", "MB", title=str(folder), title_justify="left")
    for day in days:
        table.add_row(day.topic, day.day, str(day.files), f"{day.rows:,}", f"{day.size_bytes / 1e6:,.1f}")
    console.print(table if days else f"Nothing is archived in {folder} yet.")


@app.command("verify")
def verify(as_json: bool = JSON_OPTION) -> None:
    """Prove against the broker that no record is missing and none is there twice. Exit code 1 when it is not so.

    Example: `keenstream archive verify`
    """
    from keenstream.settings import resolve_config
    from stream.archive.verifying import verify_archive

    with count_progress() as progress:
        task = progress.add_task("partitions", total=None)
        proofs = verify_archive(_folder(), resolve_config(), lambda _: progress.advance(task))
    broken = [proof for proof in proofs if proof.faults]
    if as_json:
        print_json([{**msgspec.structs.asdict(proof), "behind": proof.behind} for proof in proofs])
    else:
        _print_proofs(proofs, console)
    if broken:
        raise KeenstreamError(
            f"the archive is broken in {len(broken)} of {len(proofs)} partitions: see the faults above"
        )


@app.command("replay")
def replay(
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First day, UTC.")],
    last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day, inclusive.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")] = False,
    as_json: bool = JSON_OPTION,
) -> None:
    """Send the events of some days through the loop again, with their ids: profiles do not change by it.

    Example: `keenstream archive replay --from 2026-11-01 --to 2026-11-02 --dry-run`
    """
    from stream.archive.replaying import ReplayResult, events_to_replay

    days = first.date(), last.date()
    if days[0] > days[1]:
        raise UsageError(f"--from {days[0]} is after --to {days[1]}")
    files, events = events_to_replay(_folder(), *days)
    sent = 0 if dry_run else _send(files, events)
    result = ReplayResult(first=days[0], last=days[1], files=len(files), events=events, sent=sent)
    if as_json:
        print_json(result)
    else:
        did = f"{events:,} events would be sent" if dry_run else f"{sent:,} events were sent"
        console.print(f"{did}, from {len(files)} files of {_span(*days)}.")


def _send(files: list[Path], events: int) -> int:
    import asyncio

    from keenstream.settings import resolve_config
    from schemas.codecs import open_codecs
    from schemas.names import Topic
    from stream.archive.replaying import replay_events
    from stream.producer import KafkaProducer

    config = resolve_config()
    codec = open_codecs(config, writes=(Topic.USER_EVENTS,)).events

    async def send() -> int:
        with count_progress() as progress:
            task = progress.add_task("events", total=events)
            async with KafkaProducer(config.kafka) as producer:
                return await replay_events(files, producer, codec, lambda count: progress.advance(task, count))

    return asyncio.run(send())


def _folder() -> Path:
    from keenstream.settings import archive_folder, resolve_config

    return archive_folder(resolve_config())


def _days(folder: Path, only: str) -> list[ArchivedDay]:
    import pyarrow.parquet as pq

    from schemas.archive import ARCHIVED, archive_files, parse_file

    if only and only not in ARCHIVED:
        raise UsageError(f"{only} is not archived; there are: {', '.join(ARCHIVED)}")
    days: list[ArchivedDay] = []
    for topic in [only] if only else ARCHIVED:
        by_day: dict[str, list[Path]] = {}
        for path in archive_files(folder, topic):
            file = parse_file(path)
            by_day.setdefault(str(file.day) if file and file.day else "implausible", []).append(path)
        days += [
            ArchivedDay(
                topic=topic,
                day=day,
                files=len(paths),
                rows=sum(pq.read_metadata(path).num_rows for path in paths),
                size_bytes=sum(path.stat().st_size for path in paths),
            )
            for day, paths in by_day.items()
        ]
    return days


def _print_proofs(proofs: "list[PartitionProof]", to: "Console") -> None:
    table = Table("topic/partition", "ranges", "files", "rows", "left out", "archived to", "behind", "proof")
    table.columns[0].no_wrap = True
    shown = [proof for proof in proofs if proof.end or proof.faults]
    for proof in shown:
        cells = (proof.ranges, proof.files, proof.rows, proof.left_out.total, proof.next, proof.behind)
        verdict = "BROKEN" if proof.faults else "whole"
        table.add_row(f"{proof.topic}/{proof.partition}", *(f"{cell:,}" for cell in cells), verdict)
    to.print(table)
    if len(shown) < len(proofs):
        to.print(f"{len(proofs) - len(shown)} of {len(proofs)} partitions have had no record yet.")
    for proof in shown:
        for fault in proof.faults:
            to.print(f"{proof.topic}, partition {proof.partition}: {fault}", markup=False, soft_wrap=True)


def _span(first: date, last: date) -> str:
    return str(first) if first == last else f"{first} to {last}"
