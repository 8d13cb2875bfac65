"""`keenstream dead-letters list | show | replay`."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.table import Table

from keenstream.commands.console import JSON_OPTION, console, count_progress, print_json
from keenstream.commands.moments import FORMS, moment_ms, told
from schemas.errors import KeenstreamError

if TYPE_CHECKING:
    from schemas.config import Kafka
    from stream.dead_letter_replay import Choice, StoredLetter

app = typer.Typer(
    no_args_is_help=True, help="Records that could not be processed, with the reason and the original bytes."
)
Stage = Annotated[
    str, typer.Option(help="Only those of one worker: profiles, signals, interests, articles, archive or matches.")
]
Reason = Annotated[
    str, typer.Option(help="Only those whose reason holds this; a regular expression, in upper or lower case.")
]
Since = Annotated[str, typer.Option(help=f"Only those that failed since then: {FORMS}.")]


class ReplayResult(msgspec.Struct):
    """What a replay did, or would do with --dry-run."""

    chosen: int  # by the options
    replayed: int
    skipped: int  # replayed before, and not failed again since
    by_topic: dict[str, int]
    dry_run: bool
    seconds: float = 0.0


@app.command("list")
def list_letters(
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest to show.")] = 20,
    stage: Stage = "",
    reason: Reason = "",
    since: Since = "",
    as_json: bool = JSON_OPTION,
) -> None:
    """List the newest dead letters; the text of a reader's record is not shown here.

    Example: `keenstream dead-letters list --stage profiles --since 2h --limit 5`
    """
    letters = _choice(reason, stage, since).of(_read())
    if as_json:
        print_json([_row(stored) for stored in letters[-limit:]])
        return
    table = Table("id", "stage", "when (UTC)", "bytes", "sent again", "reason")
    table.columns[0].no_wrap = True  # `show` wants it whole
    for stored in letters[-limit:]:
        letter = stored.letter
        again = f"{stored.sent_again}×" if stored.sent_again else ""
        size = str(len(letter.value))
        table.add_row(letter.letter_id, letter.stage, told(letter.failed_at_ms), size, again, letter.reason)
    console.print(table if letters else "No dead letters.")
    if letters:
        counts = Counter(stored.letter.stage for stored in letters)
        console.print(", ".join(f"{count:,} of {name}" for name, count in counts.most_common()))


@app.command("show")
def show_letter(
    letter_id: Annotated[str, typer.Argument(help="topic:partition:offset, as `list` prints it.")],
    as_json: bool = JSON_OPTION,
) -> None:
    """Show one dead letter with its original bytes.

    Example: `keenstream dead-letters show user-events:0:17`
    """
    found = [stored for stored in _read() if stored.letter.letter_id == letter_id]
    if not found:
        raise KeenstreamError(f"there is no dead letter {letter_id}; `keenstream dead-letters list` shows the ids")
    letter = found[0].letter
    text = letter.value.decode("utf-8", errors="backslashreplace")
    if as_json:
        print_json({**_row(found[0]), "key": letter.source_key.decode(errors="backslashreplace"), "value": text})
        return
    console.print(f"[bold]{letter.letter_id}[/] ({letter.stage})")
    console.print(letter.reason, markup=False)
    console.print(text, markup=False, soft_wrap=True)


@app.command("replay")
def replay_letters(
    reason: Reason = "",
    since: Since = "",
    stage: Stage = "",
    limit: Annotated[int, typer.Option(min=0, help="At most so many, the first to fail first; 0 = all.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")] = False,
    as_json: bool = JSON_OPTION,
) -> None:
    """Send the original records to their topic again, once what made them fail is mended.

    The bytes and the key are the original ones, so the path is the same and a record that was processed after all
    changes nothing. A record that fails again is the same dead letter again; one that was replayed is not sent a
    second time unless it has failed again.

    Example: `keenstream dead-letters replay --reason "unknown schema" --since 2h --dry-run`
    """
    from keenstream.settings import resolve_config
    from stream.dead_letter_replay import replayable

    chosen = _choice(reason, stage, since).of(_read())
    letters = replayable(chosen)
    taken = letters[:limit] if limit else letters
    result = ReplayResult(
        chosen=len(chosen),
        replayed=len(taken),
        skipped=len(chosen) - len(letters),
        by_topic=dict(Counter(stored.letter.source_topic for stored in taken)),
        dry_run=dry_run,
    )
    if taken and not dry_run:
        started = time.monotonic()
        with count_progress() as progress:
            task = progress.add_task("replay", total=len(taken))
            asyncio.run(_send(taken, resolve_config().kafka, lambda count: progress.advance(task, count)))
        result.seconds = time.monotonic() - started
    _report(result, as_json)


async def _send(letters: "Sequence[StoredLetter]", kafka: "Kafka", on_sent: Callable[[int], None]) -> None:
    from stream.dead_letter_replay import replay
    from stream.producer import KafkaProducer

    async with KafkaProducer(kafka) as producer:
        await replay(letters, producer, on_sent)


def _report(result: ReplayResult, as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    verb = "would be replayed" if result.dry_run else "replayed"
    topics = ", ".join(f"{count:,} to {topic}" for topic, count in sorted(result.by_topic.items()))
    console.print(f"{result.replayed:,} of {result.chosen:,} dead letters {verb}{f' ({topics})' if topics else ''}")
    if result.skipped:
        console.print(f"{result.skipped:,} were replayed before and have not failed again")


def _choice(reason: str, stage: str, since: str) -> "Choice":
    from stream.dead_letter_replay import Choice

    now_ms = time.time_ns() // 1_000_000
    since_ms = moment_ms(since, option="--since", now_ms=now_ms) if since else 0
    return Choice(reason=reason, stage=stage, since_ms=since_ms)


def _row(stored: "StoredLetter") -> dict[str, str | int | bool]:
    letter = stored.letter
    return {
        "id": letter.letter_id,
        "stage": letter.stage,
        "failed_at_ms": letter.failed_at_ms,
        "size_bytes": len(letter.value),
        "reason": letter.reason,
        "replays": stored.sent_again,
        "open": stored.open,
    }


def _read() -> "list[StoredLetter]":
    from keenstream.settings import resolve_config
    from schemas.names import Topic
    from stream.dead_letter_replay import stored_letters
    from stream.topic_reader import read_topic

    return stored_letters(read_topic(resolve_config().kafka, Topic.DEAD_LETTERS))
