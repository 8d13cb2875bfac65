"""What all commands print with: one console for people, JSON for machines, one form of progress bar."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

console = Console(highlight=False)
JSON_OPTION = typer.Option(False, "--json", help="Print JSON for machines.")


def print_json(value: Any) -> None:
    """`value` (msgspec-encodable) as indented JSON on standard output, nothing else."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def bytes_progress() -> Progress:
    """A bar over the bytes of a file, on standard error so that output can be piped."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def count_progress() -> Progress:
    """A bar over a number of things, on standard error."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


@contextmanager
def step_progress(title: str) -> Iterator[Callable[[str], None]]:
    """A spinner on standard error that says what is being done; call what it gives with each step."""
    with Console(stderr=True).status(title) as status:
        yield lambda step: status.update(f"{title}: {step}")


@contextmanager
def steps_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each step of a job, on standard error; call what it gives with step, done and how many."""
    with count_progress() as progress:
        tasks: dict[str, TaskID] = {}

        def update(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = progress.add_task(step, total=total)
            progress.update(tasks[step], completed=done, total=total)

        yield update
