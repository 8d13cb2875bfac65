"""Small real processes for the supervisor's tests, and what is left of them."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from keenstream.stack.part import Part
from keenstream.stack.process import Command

SLEEPER = (sys.executable, "-c", "import time; time.sleep(600)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)",
)
PARENT = (
    sys.executable,
    "-c",
    "import subprocess, sys, time;"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "print(child.pid, flush=True); time.sleep(600)",
)


def works() -> None:
    """A probe that always succeeds."""


def part(name: str, argv: tuple[str, ...] = SLEEPER, probe: Callable[[], None] | None = works, **more: object) -> Part:
    fields: dict[str, object] = {"probe_interval_seconds": 0.1, "grace_seconds": 0.5, **more}
    return Part(name=name, prepare=lambda: Command(argv=argv), probe=probe, **fields)  # type: ignore[arg-type]


def eventually(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def first_line(log: Path) -> str:
    eventually(lambda: log.exists() and b"\n" in log.read_bytes())
    return log.read_text("utf-8").splitlines()[0]
