"""The same log on every runner that can be had here: the same bytes of report.json."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keenstream.stack.folders import state_folder
from offline.experiments.analyse import analyse
from offline.experiments.runners import RunnerSettings
from tests.offline.experiments.log_folders import NOW_MS, sound_log, write_log
from tests.offline.experiments.log_rows import ANALYSIS

PRISM = "github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0"
PATIENCE_SECONDS = 30.0


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("log"), sound_log(1, users=60), files=3)


@pytest.fixture(scope="module")
def expected(log: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return report(log, tmp_path_factory.mktemp("one-process"), RunnerSettings())


def report(log: Path, out: Path, settings: RunnerSettings) -> bytes:
    analyse(ANALYSIS, log, out, now_ms=NOW_MS, settings=settings)
    return (out / "report.json").read_bytes()


def test_several_processes(log: Path, expected: bytes, tmp_path: Path) -> None:
    assert report(log, tmp_path, RunnerSettings(workers=2)) == expected


@pytest.fixture(scope="session")
def prism_binary() -> Path:
    """Built by Go's client at the first test that asks for it, and kept in the state folder."""
    go = shutil.which("go")
    folder = state_folder() / "cache" / "prism-2.77.0"
    if not (folder / "prism").exists():
        if go is None:
            pytest.skip("Prism is built with Go, which is not installed")
        built = subprocess.run(
            [go, "install", PRISM],
            env={**os.environ, "GOBIN": str(folder)},
            capture_output=True,
            text=True,
            timeout=600,
        )
        if built.returncode:
            pytest.skip(f"Prism cannot be built here: {built.stderr.strip()[-300:]}")
    return folder / "prism"


@pytest.fixture
def prism(prism_binary: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a job server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (tmp_path / "prism.log").open("w") as log:
        server = subprocess.Popen([prism_binary, f"--job_port={port}", "--serve_http=false"], stdout=log, stderr=log)
        try:
            _wait_for(port, server)
            yield f"localhost:{port}"
        finally:
            server.terminate()
            server.wait(PATIENCE_SECONDS)


def _wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"Prism does not listen; exit code {server.poll()}")


def test_prism(log: Path, expected: bytes, tmp_path: Path, prism: str) -> None:
    options = (f"--job_endpoint={prism}", "--environment_type=LOOPBACK")
    assert report(log, tmp_path / "out", RunnerSettings(runner="PortableRunner", options=options)) == expected


def test_two_dask_processes(log: Path, expected: bytes, tmp_path: Path) -> None:
    from dask.distributed import LocalCluster

    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=str(tmp_path)
    ) as cluster:
        options = (f"--dask_client_address={cluster.scheduler_address}",)
        assert report(log, tmp_path / "out", RunnerSettings(runner="DaskRunner", options=options)) == expected
