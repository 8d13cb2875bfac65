import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from keenstream.stack.options import TRITON_NICENESS
from keenstream.stack.shared_memory import SHARED_MEMORY, clean_shared_memory, shared_memory_prefix
from keenstream.stack.state import ProcessIdentity
from keenstream.stack.triton import (
    TritonServer,
    probe_models,
    revive_models,
    triton_server,
)
from keenstream.stack.triton_probe import probe_triton
from schemas.errors import Unavailable
from schemas.names import Model
from tests.keenstream.stack.programs import eventually, gone

pytestmark = pytest.mark.stack


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    shutil.copytree(Path(__file__).parents[2] / "data" / "echo_model", tmp_path / "models" / "echo")
    return tmp_path / "models"


@pytest.fixture
def server(tmp_path: Path, repository: Path) -> Iterator[TritonServer]:
    with triton_server(tmp_path / "run", repository, ["echo"], probe=ask) as running:
        yield running


def ask(grpc: str, text: bytes = b"hello") -> bytes:
    request = InferInput("text", [1, 1], "BYTES")
    request.set_data_from_numpy(np.array([[text]], dtype=object))
    with InferenceServerClient(grpc) as client:
        answer = client.infer("echo", [request], client_timeout=10).as_numpy("text_out")
    assert answer is not None
    return bytes(answer[0][0])


def test_it_serves_yields_and_listens_on_this_machine_only(server: TritonServer) -> None:
    assert ask(server.grpc, b"headline") == b"headline"
    process = psutil.Process(server.pid)
    assert process.nice() == TRITON_NICENESS
    listening = {c.laddr.ip for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_a_dead_model_is_seen_by_an_inference_only_and_revived_without_a_restart(
    server: TritonServer, repository: Path
) -> None:
    with pytest.raises(InferenceServerException):
        ask(server.grpc, b"die")
    probe_models(server.grpc, ["echo"])  # Triton still calls it ready
    with pytest.raises(InferenceServerException, match="not healthy"):
        ask(server.grpc)
    revive_models(server.grpc, repository, ["echo"])
    assert ask(server.grpc) == b"hello"
    assert ProcessIdentity.of(server.pid).alive()


def test_a_model_that_is_not_loaded_is_not_ready(server: TritonServer) -> None:
    with pytest.raises(Unavailable, match="has not loaded student"):
        probe_models(server.grpc, ["echo", "student"])


def test_shared_memory_of_a_killed_server_is_removed(tmp_path: Path, repository: Path) -> None:
    folder = tmp_path / "run"
    with triton_server(folder, repository, ["echo"], probe=ask) as running:
        children = [child.pid for child in psutil.Process(running.pid).children(recursive=True)]
        psutil.Process(running.pid).kill()
        eventually(lambda: gone(running.pid))
        assert list(SHARED_MEMORY.glob(shared_memory_prefix(folder) + "*"))
    assert not list(SHARED_MEMORY.glob(shared_memory_prefix(folder) + "*"))
    assert all(gone(child) for child in children)


def test_only_own_regions_are_removed(tmp_path: Path) -> None:
    (tmp_path / f"{shared_memory_prefix(tmp_path)}1").touch()
    (tmp_path / f"{shared_memory_prefix(tmp_path / 'other')}1").touch()
    assert clean_shared_memory(tmp_path, shared_memory=tmp_path) == 1
    assert clean_shared_memory(tmp_path, shared_memory=tmp_path) == 0


def test_the_real_models_answer_the_probe(triton: str) -> None:
    probe_triton(triton, (Model.STUDENT, Model.EMBEDDER))
