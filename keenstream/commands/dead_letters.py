"""`keenstream dead-letters list | show`."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from keenstream.commands.console import JSON_OPTION, console, print_json
from schemas.errors import KeenstreamError
from stream.dead_letters import DeadLetter

app = typer.Typer(
    no_args_is_help=True, help="Records that could not be processed, with the reason and the original bytes."
)


@app.command("list")
def list_letters(
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest to show.")] = 20,
    stage: Annotated[
        str, typer.Option(help="Only those of one worker: profiles, signals, interests or articles.")
    ] = "",
    as_json: bool = JSON_OPTION,
) -> None:
    """List the newest dead letters; the text of a reader's record is not shown here.

    Example: `keenstream dead-letters list --stage profiles --limit 5`
    """
    letters = sorted((letter for letter in _read() if stage in ("", letter.stage)), key=lambda row: row.failed_at_ms)
    if as_json:
        print_json([_row(letter) for letter in letters[-limit:]])
        return
    table = Table("id", "stage", "when (UTC)", "bytes", "reason")
    for letter in letters[-limit:]:
        when = datetime.fromtimestamp(letter.failed_at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(letter.letter_id, letter.stage, when, str(len(letter.value)), letter.reason)
    console.print(table if letters else "No dead letters.")
    if letters:
        counts = Counter(letter.stage for letter in letters)
        console.print(", ".join(f"{count:,} of {name}" for name, count in counts.most_common()))


@app.command("show")
def show_letter(
    letter_id: Annotated[str, typer.Argument(help="topic:partition:offset, as `list` prints it.")],
    as_json: bool = JSON_OPTION,
) -> None:
    """Show one dead letter with its original bytes.

    Example: `keenstream dead-letters show user-events:0:17`
    """
    for letter in _read():
        if letter.letter_id == letter_id:
            break
    else:
        raise KeenstreamError(f"there is no dead letter {letter_id}; `keenstream dead-letters list` shows the ids")
    text = letter.value.decode("utf-8", errors="backslashreplace")
    if as_json:
        print_json({**_row(letter), "key": letter.source_key.decode(errors="backslashreplace"), "value": text})
        return
    console.print(f"[bold]{letter.letter_id}[/] ({letter.stage})")
    console.print(letter.reason, markup=False)
    console.print(text, markup=False, soft_wrap=True)


def _row(letter: DeadLetter) -> dict[str, str | int]:
    return {
        "id": letter.letter_id,
        "stage": letter.stage,
        "failed_at_ms": letter.failed_at_ms,
        "size_bytes": len(letter.value),
        "reason": letter.reason,
    }


def _read() -> Iterator[DeadLetter]:
    from keenstream.settings import resolve_config
    from schemas.names import Topic
    from stream.dead_letters import read_dead_letter
    from stream.topic_reader import read_topic

    newest: dict[str, DeadLetter] = {}  # a record read twice is one dead letter
    for record in read_topic(resolve_config().kafka.bootstrap, Topic.DEAD_LETTERS):
        letter = read_dead_letter(dict(record.headers), record.value or b"")
        newest[letter.letter_id] = letter
    return iter(newest.values())
