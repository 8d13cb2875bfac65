"""A worker as a process of a benchmark or a test: started as a user starts it, ended surely."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from keenstream.stack.ports import free_port
from keenstream.stack.process import Command, full_argv
from schemas.config import Config, environment_of


class Worker:
    """One running `keenstream worker NAME`."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", metrics_port: int, log: Path) -> None:
        self.name, self.process, self.metrics_port, self.log = name, process, metrics_port, log

    def metric(self, name: str, **labels: str) -> float:
        """A metric's sum over the labels not named; 0 while the worker does not answer."""
        try:
            text = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=2.0).text
        except httpx.TransportError:
            return 0.0
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, timeout_seconds: float = 40.0) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_seconds)


@contextmanager
def worker(name: str, config: Config, folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Worker]:
    """A worker for the length of a `with`; killed at the end if the test has not ended it."""
    port, folder = free_port(), folder / f"{name}-{time.monotonic_ns()}"
    folder.mkdir(parents=True)
    log = folder / "log"
    argv = (sys.executable, "-m", "keenstream.cli", "worker", name)
    options = ("--metrics-port", str(port), "--data-folder", str(folder))
    with log.open("wb") as output:
        process = subprocess.Popen(
            full_argv(Command(argv=argv + options)),  # ends with us, however we end
            env={**os.environ, **environment_of(config), **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Worker(name, process, port, log)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
