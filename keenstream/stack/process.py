"""One server process in a group of its own: start it so that it dies with us, end the whole group surely."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import psutil

from schemas.errors import Unavailable


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What to start: argv, what the environment adds to ours, where, and how much it yields to others."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = {}
    folder: str | None = None
    niceness: int = 0


def full_argv(command: Command) -> list[str]:
    """The argv behind `setpriv` (the kernel kills it when the thread that started it ends) and `nice`.

    Both exec in place, so the pid stays; a preexec_fn would be unsafe beside gRPC's threads.
    """
    argv: list[str] = []
    if setpriv := shutil.which("setpriv"):
        argv += [setpriv, "--pdeathsig", "KILL"]
    if command.niceness:
        argv += ["nice", "-n", str(command.niceness)]
    return argv + list(command.argv)


def start(command: Command, log: Path) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            full_argv(command),
            env={**os.environ, **command.environment},
            cwd=command.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, and Ctrl-C in the terminal reaches only us
        )


def group_members(group: int) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
        except (ProcessLookupError, psutil.Error):
            continue
    return members


def end_group(group: int, grace_seconds: float, reap: Callable[[], object] = lambda: None) -> None:
    """SIGTERM to the whole group, then SIGKILL for what is left after the grace; returns when all are gone."""
    _signal_group(group, signal.SIGTERM)
    if not _wait_gone(group, grace_seconds, reap):
        _signal_group(group, signal.SIGKILL)
        _wait_gone(group, 10.0, reap)


def end(process: subprocess.Popen[bytes], grace_seconds: float) -> None:
    end_group(process.pid, grace_seconds, process.poll)
    process.wait(timeout=10)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _wait_gone(group: int, seconds: float, reap: Callable[[], object]) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        reap()  # a zombie of ours would keep the group alive
        if not group_members(group):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)


def last_lines(log: Path, count: int = 12) -> str:
    if not log.exists():
        return "(no log)"
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 16_384))
        lines = stream.read().decode("utf-8", "replace").splitlines()
    return "\n".join(lines[-count:])


def wait_ready(
    name: str, process: subprocess.Popen[bytes], probe: Callable[[], None], log: Path, timeout_seconds: float
) -> None:
    """Call the probe until it stops raising; Unavailable, with the log's end, when the process ends or time is up."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        if process.poll() is not None:
            raise Unavailable(f"{name} ended with {process.returncode} while starting; {log} ends:\n{last_lines(log)}")
        try:
            return probe()
        except Exception as error:  # any client's error means: not ready yet
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{name} did not answer in {timeout_seconds:.0f} s ({error!r}); {log} ends:\n{last_lines(log)}"
                ) from error
        time.sleep(0.1)


def run_once(argv: Sequence[str], what: str, timeout_seconds: float = 600) -> None:
    """A short command that must succeed; its output is in the error."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_seconds, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise Unavailable(f"{what} needs `{argv[0]}`, which is not installed: run `keenstream doctor`") from error
    if done.returncode:
        raise Unavailable(f"{what} failed ({done.returncode}):\n{(done.stdout + done.stderr)[-2000:]}")
