"""The state file of a run: who supervises, which processes, where they answer; and what a dead run left behind."""

import fcntl
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import msgspec
import psutil

from schemas.errors import UsageError

RUN_VARIABLE = "KEENSTREAM_RUN_ID"  # in the environment of every process of a run, so that each is recognised

Status = Literal["waiting", "starting", "ready", "failing", "backing off", "done", "ended"]


class ProcessIdentity(msgspec.Struct, frozen=True):
    """A process id with its start time: ids are used again, pairs are not."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity":
        return cls(pid=pid, started=psutil.Process(pid).create_time())

    def alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            # the clock can be set between two readings of the start time
            return bool(abs(process.create_time() - self.started) < 1 and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False


class PartState(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    status: Status
    address: str
    log: str
    process: ProcessIdentity | None = None
    restarts: int = 0
    failed_starts: int = 0  # in a row, without having been ready
    problem: str = ""


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    run_id: str
    supervisor: ProcessIdentity
    environment: Mapping[str, str]  # the settings that point a client at this run
    parts: tuple[PartState, ...]

    def part(self, name: str) -> PartState:
        return next(part for part in self.parts if part.name == name)

    @property
    def ready(self) -> bool:
        return all(part.status in ("ready", "done") for part in self.parts)


def state_path(home: Path) -> Path:
    return home / "stack" / "state.json"


def write_state(home: Path, state: RunState) -> None:
    path = state_path(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}")
    scratch.touch(mode=0o600)  # the environment in it holds the key of the API
    scratch.write_bytes(msgspec.json.format(msgspec.json.encode(state)))
    scratch.replace(path)  # a reader sees the old state or the new one


def read_state(home: Path) -> RunState | None:
    """The last written state, of a live run or a dead one."""
    try:
        return msgspec.json.decode(state_path(home).read_bytes(), type=RunState)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def live_state(home: Path) -> RunState | None:
    state = read_state(home)
    return state if state and state.supervisor.alive() else None


@contextmanager
def only_supervisor(home: Path) -> Iterator[None]:
    """Hold the folder's lock; the kernel gives it back however we end."""
    path = home / "stack" / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"a stack already runs in {home}: `keenstream stack down` ends it") from error
        yield


def processes_of(run_id: str) -> list[psutil.Process]:
    """Every process that carries the run's id, wherever it was moved to."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(RUN_VARIABLE) == run_id and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def sweep(run_id: str) -> int:
    """Kill whatever is left of a run; returns how many processes there were."""
    left = [process for process in processes_of(run_id) if process.pid != os.getpid()]
    for process in left:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(left, timeout=10)
    return len(left)


def clear_stale(home: Path) -> int:
    """End what a dead run of this folder left and forget its state; returns how many processes there were."""
    state = read_state(home)
    if state is None or state.supervisor.alive():
        return 0
    count = sweep(state.run_id)
    state_path(home).unlink(missing_ok=True)
    return count
