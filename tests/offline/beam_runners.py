"""Runners that jobs are tried on beside the local one: Prism's own binary, and a small Dask cluster.

The binary is named by PRISM, or is on the PATH, or in the folder of `go install`: nothing is installed by a test.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from offline.experiments.runners import RunnerSettings

START_SECONDS = 60.0


def prism_binary() -> str | None:
    in_go = Path(os.environ.get("GOBIN") or Path(os.environ.get("GOPATH") or Path.home() / "go") / "bin") / "prism"
    return os.environ.get("PRISM") or shutil.which("prism") or (str(in_go) if in_go.is_file() else None)


@contextmanager
def prism(binary: str, folder: Path) -> Iterator[RunnerSettings]:
    """Settings of a Prism that runs while the block does; the SDK's harness runs in this process (LOOPBACK)."""
    port, web = _free_port(), _free_port()
    command = [binary, f"--job_port={port}", f"--web_port={web}", f"--idle_shutdown_timeout={10 * 60}s"]
    with (folder / "prism.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        try:
            _wait(port, process)
            options = (f"--job_endpoint=localhost:{port}", "--environment_type=LOOPBACK")
            yield RunnerSettings(runner="PortableRunner", options=options)
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def dask() -> Iterator[RunnerSettings]:
    """Settings of a cluster of threads of this process."""
    from distributed import LocalCluster, default_client

    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, protocol="inproc"
    ) as cluster:
        yield RunnerSettings(runner="DaskRunner", options=(f"--dask_client_address={cluster.scheduler_address}",))
        with suppress(ValueError):  # the runner leaves its client open, which would look for the cluster for ever
            default_client().close()  # type: ignore[no-untyped-call]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"prism ended with {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"prism does not listen after {START_SECONDS:.0f} s")
