"""Start, look at and end the supervised stack of a state folder, from any process."""

import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen, TimeoutExpired

import msgspec
import psutil

from keenstream.stack.options import StackOptions, options_path, triton_folder
from keenstream.stack.process import last_lines
from keenstream.stack.shared_memory import clean_shared_memory
from keenstream.stack.state import RunState, clear_stale, live_state, read_state, state_path, sweep
from schemas.config import Config, environment_of
from schemas.errors import Unavailable, UsageError

START_TIMEOUT_SECONDS = 240.0
STOP_TIMEOUT_SECONDS = 60.0
MOST_FAILED_STARTS = 3
POLL_SECONDS = 0.1

Watcher = Callable[[RunState], None]


def status(home: Path) -> RunState | None:
    """The run that lives in this folder, or None."""
    return live_state(home)


def stack_environment(home: Path) -> Mapping[str, str]:
    """The settings that point a client at the run of this folder; empty without one."""
    state = live_state(home)
    return state.environment if state else {}


def up(
    home: Path,
    options: StackOptions,
    config: Config,
    watch: Watcher = lambda state: None,
    die_with_us: bool = False,
    timeout_seconds: float = START_TIMEOUT_SECONDS,
) -> RunState:
    """Start everything and return when each part answered a real request; ends all again if one does not."""
    if live_state(home):
        raise UsageError(f"a stack already runs in {home}: `keenstream stack down` ends it")
    clear_stale(home)
    run_id = uuid.uuid4().hex
    daemon = _spawn(home, run_id, options, config, die_with_us)
    try:
        return _wait_ready(home, run_id, daemon, watch, timeout_seconds)
    except BaseException:  # Ctrl-C included: what was started is ended
        _stop(daemon)
        sweep(run_id)
        raise


def down(home: Path, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> int:
    """End the run of this folder, live or stale; returns how many processes had to be killed. Nothing there: 0."""
    state = read_state(home)
    if state is None:
        return 0
    if state.supervisor.alive():
        process = psutil.Process(state.supervisor.pid)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout_seconds)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(10)
    left = sweep(state.run_id)
    clean_shared_memory(triton_folder(home))
    state_path(home).unlink(missing_ok=True)
    return left


@contextmanager
def running_stack(
    home: Path, options: StackOptions, config: Config, watch: Watcher = lambda state: None, keep: bool = False
) -> Iterator[RunState]:
    """A stack for the length of a `with`; kept up afterwards on request, but not after an error."""
    state = up(home, options, config, watch, die_with_us=not keep)
    try:
        yield state
    except BaseException:
        down(home)
        raise
    if not keep:
        down(home)


def _spawn(home: Path, run_id: str, options: StackOptions, config: Config, die_with_us: bool) -> "Popen[bytes]":
    path = options_path(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(options))
    log = supervisor_log(home)
    log.parent.mkdir(parents=True, exist_ok=True)
    guard = ["setpriv", "--pdeathsig", "TERM"] if die_with_us else []
    argv = [*guard, sys.executable, "-m", "keenstream.stack.daemon", str(home), run_id]
    environment = {**os.environ, **environment_of(config)}
    with log.open("ab") as output:
        return Popen(argv, env=environment, stdin=DEVNULL, stdout=output, stderr=STDOUT, start_new_session=True)


def supervisor_log(home: Path) -> Path:
    return home / "logs" / "supervisor.log"


def _stop(daemon: "Popen[bytes]") -> None:
    daemon.terminate()
    try:
        daemon.wait(STOP_TIMEOUT_SECONDS)
    except TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _wait_ready(home: Path, run_id: str, daemon: "Popen[bytes]", watch: Watcher, timeout_seconds: float) -> RunState:
    deadline = time.monotonic() + timeout_seconds
    seen: RunState | None = None
    while time.monotonic() < deadline:
        if daemon.poll() is not None:
            raise Unavailable(f"the supervisor ended: {last_lines(supervisor_log(home), 3)}")
        state = read_state(home)
        if state and state.run_id == run_id and state != seen:
            seen = state
            watch(state)
            if state.ready:
                return state
            _refuse_hopeless(state)
        time.sleep(POLL_SECONDS)
    waiting = [f"{part.name} ({part.problem})" for part in (seen.parts if seen else ()) if part.status != "ready"]
    raise Unavailable(f"not ready after {timeout_seconds:.0f} s: {', '.join(waiting)}; logs are in {home / 'logs'}")


def _refuse_hopeless(state: RunState) -> None:
    for part in state.parts:
        if part.failed_starts >= MOST_FAILED_STARTS:
            raise Unavailable(f"{part.name} does not start: {part.problem}; its log is {part.log}")
