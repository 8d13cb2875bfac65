"""One supervised part in motion: start, probe, repair, back off, start again.

`advance` is called every tick by the one thread that also starts the processes: the kernel ends a child when the thread
that started it ends. Probes run in threads of their own, so that a hanging request holds up nobody.
"""

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from keenstream.stack.part import Backoff, Part
from keenstream.stack.process import end, last_lines, start
from keenstream.stack.state import RUN_VARIABLE, PartState, ProcessIdentity, Status

LOG_LIMIT_BYTES = 20_000_000


class Attempt:
    """A call in a thread: running, succeeded, or failed with its error."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # any client's error means that the part does not answer
            self.error = error

    @property
    def running(self) -> bool:
        return self._thread.is_alive()


class PartRun:
    def __init__(self, part: Part, run_id: str, log: Path, backoff: Backoff) -> None:
        self.part, self._run_id, self._log, self._backoff = part, run_id, log, backoff
        self.status: Status = "waiting"
        self._process: subprocess.Popen[bytes] | None = None
        self._identity: ProcessIdentity | None = None
        self._attempt: Attempt | None = None
        self._failures = self._restarts = self._failed_starts = self._tries = 0
        self._problem = ""
        self._start_at = self._probe_at = self._deadline = self._ready_since = 0.0

    @property
    def satisfied(self) -> bool:
        """Whether parts that depend on this one may start."""
        return self.status in ("ready", "done", "failing")

    def state(self) -> PartState:
        return PartState(
            name=self.part.name,
            status=self.status,
            address=self.part.address,
            log=str(self._log),
            process=self._identity,
            restarts=self._restarts,
            failed_starts=self._failed_starts,
            problem=self._problem,
        )

    def advance(self, now: float, dependencies_ready: bool) -> None:
        if self.status in ("waiting", "backing off"):
            if dependencies_ready and now >= self._start_at:
                self._start(now)
        elif self.status in ("starting", "ready", "failing"):
            self._watch(now)

    def end(self) -> None:
        if self._process:
            end(self._process, self.part.grace_seconds)
            if self.part.clean:
                self.part.clean()
        self._process = self._identity = None
        if self.status != "done":
            self.status = "ended"

    def _start(self, now: float) -> None:
        try:
            command = self.part.prepare()
            if self._log.exists() and self._log.stat().st_size > LOG_LIMIT_BYTES:
                self._log.replace(self._log.with_suffix(".log.1"))
            environment = {**command.environment, RUN_VARIABLE: self._run_id}
            self._process = start(msgspec.structs.replace(command, environment=environment), self._log)
            self._identity = ProcessIdentity.of(self._process.pid)
        except Exception as error:  # a part that cannot start must not end the others
            return self._fail(now, f"cannot start: {error}")
        self.status, self._attempt, self._failures = "starting", None, 0
        self._probe_at, self._deadline = now, now + self.part.start_timeout_seconds

    def _watch(self, now: float) -> None:
        assert self._process is not None
        code = self._process.poll()
        if code is not None:
            self._exited(now, code)
        elif self.part.probe is not None:
            self._probe(now)
        elif now > self._deadline:
            self._fail(now, f"was not done in {self.part.start_timeout_seconds:.0f} s")

    def _exited(self, now: float, code: int) -> None:
        if self.part.probe is None and code == 0:
            self.end()
            self.status, self._problem, self._failed_starts = "done", "", 0
        else:
            self._fail(now, f"ended with {code}: {last_lines(self._log, 3)}")

    def _probe(self, now: float) -> None:
        if self._attempt is None:
            if now >= self._probe_at:
                self._attempt = Attempt(self._call())
            return
        if self._attempt.running:
            return
        error, self._attempt = self._attempt.error, None
        if error is None:
            self._answered(now)
        else:
            self._unanswered(now, error)

    def _call(self) -> Callable[[], None]:
        call = (self.part.probe_starting if self.status == "starting" else None) or self.part.probe
        assert call is not None
        if self.status == "failing" and self._failures == self.part.probe_failures and self.part.repair:
            repair = self.part.repair
            return lambda: _both(repair, call)
        return call

    def _answered(self, now: float) -> None:
        if self.status == "starting":
            self._ready_since = now
        if now - self._ready_since > self._backoff.forgiven_after_seconds:
            self._tries = 0
        self.status, self._failures, self._failed_starts, self._problem = "ready", 0, 0, ""
        self._probe_at = now + self.part.probe_interval_seconds

    def _unanswered(self, now: float, error: Exception) -> None:
        self._problem = f"does not answer: {type(error).__name__}: {error}"[:500]
        if self.status == "starting":
            self._probe_at = now + 0.1
            if now > self._deadline:
                self._fail(now, self._problem)
            return
        self.status, self._failures = "failing", self._failures + 1
        self._probe_at = now + min(1.0, self.part.probe_interval_seconds)
        # one more failure than asked for, where the last try included the repair
        if self._failures >= self.part.probe_failures + (1 if self.part.repair else 0):
            self._fail(now, self._problem)

    def _fail(self, now: float, problem: str) -> None:
        started = self.status in ("ready", "failing")
        self.end()
        self.status, self._problem, self._attempt = "backing off", problem[:500], None
        self._start_at = now + self._backoff.seconds(self._tries)
        self._tries, self._restarts = self._tries + 1, self._restarts + 1
        self._failed_starts = 0 if started else self._failed_starts + 1


def _both(first: Callable[[], None], second: Callable[[], None]) -> None:
    first()
    second()
