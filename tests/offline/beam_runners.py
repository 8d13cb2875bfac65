"""Runners that jobs are tried on beside the local one: Prism, and Dask clusters of threads or processes."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from keenstream.stack.folders import state_folder
from keenstream.stack.ports import LOCAL, free_port, is_free
from offline.runners import RunnerSettings

PRISM_VERSION = "2.77.0"  # Beam's
PRISM = f"github.com/apache/beam/sdks/v2/go/cmd/prism@v{PRISM_VERSION}"
BUILD_SECONDS, START_SECONDS = 600.0, 60.0


def prism_binary() -> Path:
    """Built by Go's client for the first test that asks for it, and kept in the state folder; without Go: a skip."""
    folder = state_folder() / "cache" / f"prism-{PRISM_VERSION}"
    binary = folder / "prism"
    if not binary.exists():
        if (go := shutil.which("go")) is None:
            pytest.skip("Prism is built with Go, which is not installed")
        environment = {**os.environ, "GOBIN": str(folder)}
        built = subprocess.run(
            [go, "install", PRISM], env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS
        )
        if built.returncode:
            pytest.skip(f"Prism cannot be built here: {built.stderr.strip()[-300:]}")
    return binary


@contextmanager
def prism(folder: Path) -> Iterator[RunnerSettings]:
    """Settings of a Prism that runs while the block does; the SDK's harness runs in this process (LOOPBACK)."""
    port = free_port()
    command = [str(prism_binary()), f"--job_port={port}", "--serve_http=false"]
    with (folder / "prism.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        try:
            _wait(port, process)
            options = (f"--job_endpoint={LOCAL}:{port}", "--environment_type=LOOPBACK")
            yield RunnerSettings(runner="PortableRunner", options=options)
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def dask(folder: Path, *, processes: int = 0) -> Iterator[RunnerSettings]:
    """Settings of a cluster of so many processes; 0: of two threads of this one."""
    from distributed import LocalCluster, default_client

    threads = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "protocol": "inproc"}
    several = {"n_workers": processes, "threads_per_worker": 1, "processes": True, "local_directory": str(folder)}
    with LocalCluster(  # type: ignore[no-untyped-call]
        dashboard_address=None, **(several if processes else threads)
    ) as cluster:
        yield RunnerSettings(runner="DaskRunner", options=(f"--dask_client_address={cluster.scheduler_address}",))
        with suppress(ValueError):  # the runner leaves its client open, which would look for the cluster for ever
            default_client().close()  # type: ignore[no-untyped-call]


def _wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + START_SECONDS
    while is_free(port):
        if process.poll() is not None:
            raise RuntimeError(f"prism ended with {process.returncode}")
        if time.monotonic() > until:
            raise RuntimeError(f"prism does not listen after {START_SECONDS:.0f} s")
        time.sleep(0.1)
