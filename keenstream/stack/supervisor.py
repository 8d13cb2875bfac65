"""One supervisor for all parts: starts them in order, watches them, starts them again, and leaves nothing behind."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from keenstream.stack.part import Backoff, Part, levels
from keenstream.stack.part_run import PartRun
from keenstream.stack.state import ProcessIdentity, RunState, only_supervisor, state_path, sweep, write_state

TICK_SECONDS = 0.1


class Supervisor:
    """Runs in one thread from the first start to the last end; `state` may be read from any."""

    def __init__(
        self,
        parts: Sequence[Part],
        home: Path,
        run_id: str,
        supervisor: ProcessIdentity,
        environment: Mapping[str, str] | None = None,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._levels = levels(parts)
        self._home, self._run_id, self._clock = home, run_id, clock
        self._supervisor, self._environment = supervisor, dict(environment or {})
        self._runs = {
            part.name: PartRun(part, run_id, home / "logs" / f"{part.name}.log", backoff or Backoff()) for part in parts
        }
        self.state = self._observe()

    def run(self, stop: threading.Event) -> None:
        """Supervise until `stop` is set, then end everything."""
        with only_supervisor(self._home):
            write_state(self._home, self.state)
            try:
                while not stop.is_set():
                    self._tick()
                    stop.wait(TICK_SECONDS)
            finally:
                self._end()

    def _tick(self) -> None:
        now = self._clock()
        for run in self._runs.values():
            run.advance(now, all(self._runs[name].satisfied for name in run.part.depends_on))
        observed = self._observe()
        if observed != self.state:
            self.state = observed
            write_state(self._home, observed)

    def _end(self) -> None:
        for level in reversed(self._levels):
            with ThreadPoolExecutor(len(level)) as pool:
                list(pool.map(lambda part: self._runs[part.name].end(), level))
        sweep(self._run_id)
        self.state = self._observe()
        state_path(self._home).unlink(missing_ok=True)

    def _observe(self) -> RunState:
        return RunState(
            run_id=self._run_id,
            supervisor=self._supervisor,
            environment=self._environment,
            parts=tuple(run.state() for run in self._runs.values()),
        )


@contextmanager
def supervised(supervisor: Supervisor) -> Iterator[Supervisor]:
    """The supervisor in a thread of this process for the length of a `with`."""
    stop = threading.Event()
    thread = threading.Thread(target=supervisor.run, args=(stop,), name="supervisor")
    thread.start()
    try:
        yield supervisor
    finally:
        stop.set()
        thread.join()
