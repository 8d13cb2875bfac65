"""What happens around the steps of every trainer: curves, gates, checkpoints, progress, a clean Ctrl-C.

A callback and not a trainer of our own: trl's classes change, their callbacks do not.
"""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import TrainerCallback

from offline.training.best import Measured
from offline.training.gates import HELD_OUT, Gates, Measure
from offline.training.progress import Pace, Progress, Watch
from offline.training.run import Run

Keep = Callable[[Any, Path], None]  # writes the model as it is into a new folder

_LOGGED_ONCE = "train_"  # trainer's summary at the end, no point of a curve


class Stop:
    """A wish to end after the step that runs: somebody's, or the end of a slice of time (`until`, monotonic)."""

    def __init__(self, until: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.wished, self._until, self._clock = False, until, clock

    @property
    def slice_over(self) -> bool:
        return self._until is not None and self._clock() >= self._until

    def wish(self, _number: int, _frame: FrameType | None) -> None:
        if self.wished:  # the second Ctrl-C does not wait
            raise KeyboardInterrupt
        self.wished = True


@contextmanager
def stopping_on_interrupt(until: float | None) -> Iterator[Stop]:
    """Ctrl-C and SIGTERM end the run after its step, with a checkpoint; what follows may raise KeyboardInterrupt."""
    stop = Stop(until)
    before = {number: signal.signal(number, stop.wish) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Around(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """The callback of one run."""

    def __init__(
        self,
        run: Run,
        gates: Gates,
        stop: Stop,
        watch: Watch,
        *,
        measure: Measure | None = None,
        measure_every: int = 0,
        keep: Keep | None = None,
    ) -> None:
        """`keep`: the weights that measured best are kept while the run goes on."""
        self.run, self.gates, self.stop, self.watch = run, gates, stop, watch
        self.measure, self.measure_every, self.keep = measure, measure_every, keep
        self.reason = ""
        self._pace = Pace()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            self._held_out(0, control, kwargs)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._pace.tick(time.monotonic())
        if self.measure_every and state.global_step % self.measure_every == 0:
            self._held_out(state.global_step, control, kwargs)
        if self.stop.wished or self.stop.slice_over:
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float | None], **kwargs: Any) -> None:
        if any(name.startswith(_LOGGED_ONCE) for name in logs):
            return
        measures = {
            name: float(value) for name, value in logs.items() if value is not None
        }  # None: of no value, a mean
        self._observe(state.global_step, measures, control)
        self.watch(
            Progress(
                stage=self.run.manifest.kind,
                step=state.global_step,
                steps=state.max_steps,
                seconds_left=self._pace.seconds_for(state.max_steps - state.global_step),
                measures=measures,
            )
        )

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.run.checkpoints.commit(state.global_step)

    def _held_out(self, step: int, control: Any, kwargs: Mapping[str, Any]) -> None:
        if not self.measure:
            return
        measures = self.measure(kwargs["model"])
        if self.keep and HELD_OUT in measures:
            measured = Measured(step=step, value=measures[HELD_OUT])
            self.run.best.offer(measured, partial(self.keep, kwargs["model"]))
        self._observe(step, measures, control)

    def _observe(self, step: int, measures: Mapping[str, float], control: Any) -> None:
        self.run.curves.add(step, measures)
        reason = self.gates.observe(measures)
        if reason and not self.reason:
            self.reason = reason
            control.should_training_stop = True


def held_out_scores(run: Run) -> dict[str, float]:
    """The first held-out measure of the curves, and that of the model that is kept, for the manifest."""
    values = [row[HELD_OUT] for row in run.curves.rows if HELD_OUT in row]
    return {HELD_OUT: values[-1], f"{HELD_OUT}_first": values[0]} if values else {}


def best_scores(best: Measured) -> dict[str, float]:
    """The same of a run that keeps its best weights and not its last."""
    return {HELD_OUT: best.value, "kept_step": float(best.step)}
