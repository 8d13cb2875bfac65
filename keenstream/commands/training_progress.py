"""How a training run is watched: a bar with the time left on a terminal, a line now and then in a file or a pipe."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:  # torch stays away until a command runs
    from offline.training.progress import Progress as Step
    from offline.training.progress import Watch
    from offline.training.run import Tell

EVERY_SECONDS = 20.0  # between two lines where nothing moves
SHOWN = ("loss", "reward")
_NEVER = -EVERY_SECONDS


@contextmanager
def training_progress(
    shown_on: Console | None = None, clock: Callable[[], float] = time.monotonic
) -> "Iterator[tuple[Watch, Tell]]":
    """What a session calls with each step, and with each sentence; all of it goes to standard error."""
    error = shown_on or Console(stderr=True, highlight=False)

    def tell(sentence: str) -> None:
        error.print(sentence, markup=False, soft_wrap=True)

    if not error.is_terminal:
        yield _Lines(tell, clock), tell
        return
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    left = TextColumn("{task.fields[left]}")
    with Progress(*columns, TimeElapsedColumn(), left, console=error, transient=True) as bar:
        task = bar.add_task("preparing", total=None, left="")

        def watch(step: "Step") -> None:
            bar.update(task, description=name_of(step), completed=step.step, total=step.steps, left=left_of(step))

        yield watch, tell


class _Lines:
    """The first and the last step of a stage, and between them a line in `EVERY_SECONDS`."""

    def __init__(self, tell: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._tell, self._clock = tell, clock
        self._last, self._stage = _NEVER, ""

    def __call__(self, step: "Step") -> None:
        due = self._clock() - self._last >= EVERY_SECONDS
        if due or step.stage != self._stage or step.step == step.steps:
            self._last, self._stage = self._clock(), step.stage
            told = (f"{name_of(step)}: step {step.step} of {step.steps}", left_of(step))
            self._tell(", ".join(filter(None, told)))


def name_of(step: "Step") -> str:
    """The stage with its loss and reward."""
    measured = (f"{name} {step.measures[name]:.3f}" for name in SHOWN if name in step.measures)
    return " ".join([step.stage, *measured])


def left_of(step: "Step") -> str:
    """At the pace of late: rich's own guess would take the steps of an earlier slice for steps of this one."""
    return f"{timedelta(seconds=round(step.seconds_left))} left" if step.seconds_left is not None else ""
