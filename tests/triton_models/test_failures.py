"""What goes wrong in a served model, on a Triton of its own: a dead process, a full queue, a swap of versions."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from keenstream.stack.triton import TritonServer, revive_models, triton_server
from offline.release.listing import list_models
from offline.release.models import ModelPaths
from offline.release.repository import CONFIGURATION, add_version, assemble_repository
from schemas.clients.models import Answer, Completion
from schemas.clients.triton import TritonEmbedder, TritonStudent, probe_embedder, probe_student
from schemas.errors import Overloaded, RetryableError, Unavailable
from schemas.names import Model
from tests.triton_models.prompts import reader_prompts

pytestmark = [pytest.mark.stack, pytest.mark.fault]

MODELS = (Model.STUDENT, Model.EMBEDDER)


@pytest.fixture
def repository(tmp_path: Path, paths: ModelPaths) -> Path:
    """A repository of this test's own, with short lists."""
    target = tmp_path / "repository"
    weights = {Model.STUDENT: paths.student, Model.EMBEDDER: paths.embedder}
    assemble_repository(target, weights, parameters={Model.STUDENT: {"max_new_tokens": "8"}})
    return target


@pytest.fixture
def server(tmp_path: Path, repository: Path) -> Iterator[TritonServer]:
    with triton_server(tmp_path / "run", repository, MODELS, niceness=0) as running:
        yield running


def kill_stubs(pid: int) -> None:
    stubs = [child for child in psutil.Process(pid).children(recursive=True) if "stub" in child.name()]
    assert stubs
    for stub in stubs:
        os.kill(stub.pid, signal.SIGKILL)


async def test_a_dead_model_is_noticed_by_its_probe_and_healed_by_a_load(
    server: TritonServer, repository: Path
) -> None:
    await probe_student(server.grpc, deadline_seconds=20.0)
    kill_stubs(server.pid)
    with pytest.raises(RetryableError):
        await probe_student(server.grpc, deadline_seconds=3.0)
    with pytest.raises(RetryableError):
        await probe_embedder(server.grpc, deadline_seconds=3.0)
    listed = await list_models(server.grpc, deadline_seconds=3.0)
    assert [model.state for model in listed] == ["DEAD", "DEAD"], "Triton itself still says READY"
    revive_models(server.grpc, repository, MODELS)
    await probe_student(server.grpc, deadline_seconds=20.0)
    await probe_embedder(server.grpc)


async def test_a_second_version_is_swapped_in_without_an_error(
    server: TritonServer, repository: Path, paths: ModelPaths
) -> None:
    embedder, stop = TritonEmbedder(server.grpc), asyncio.Event()

    async def call() -> int:
        calls = 0
        while not stop.is_set():
            await embedder.embed(["news"])  # an error ends the test
            calls += 1
        return calls

    clients = [asyncio.create_task(call()) for _ in range(4)]
    await asyncio.sleep(0.5)
    add_version(repository, Model.EMBEDDER, paths.embedder, version=2)
    await asyncio.to_thread(revive_models, server.grpc, repository, [Model.EMBEDDER])
    await asyncio.sleep(0.5)
    stop.set()
    assert min(await asyncio.gather(*clients)) > 0
    await embedder.close()
    served = [model for model in await list_models(server.grpc) if model.name == Model.EMBEDDER]
    assert [model.version for model in served if model.state == "READY"] == ["2"]


async def test_a_full_queue_is_overload_and_the_server_goes_on(tmp_path: Path, repository: Path) -> None:
    configuration = repository / Model.STUDENT / CONFIGURATION
    text = configuration.read_text(encoding="utf-8")
    configuration.write_text(text.replace("max_queue_size: 256", "max_queue_size: 2"), encoding="utf-8")
    with triton_server(tmp_path / "run", repository, [Model.STUDENT], niceness=0) as server:
        student = TritonStudent(server.grpc, deadline_seconds=2.0, concurrency=200)
        answers: Sequence[Answer] = await student.write(reader_prompts(200))
        refused = [answer for answer in answers if not isinstance(answer, Completion)]
        assert refused
        assert {type(answer) for answer in refused} == {Overloaded}
        assert any("Exceeds maximum queue size" in str(answer) for answer in refused)
        await probe_student(server.grpc, deadline_seconds=20.0)
        await student.close()


async def test_a_model_that_is_not_loaded_is_said_to_be_away(tmp_path: Path, repository: Path) -> None:
    with triton_server(tmp_path / "run", repository, [Model.EMBEDDER], niceness=0) as server:
        began = time.monotonic()
        with pytest.raises(Unavailable, match="student"):
            await probe_student(server.grpc, deadline_seconds=2.0)
        assert time.monotonic() - began < 20.0
        listed = {model.name: model.state for model in await list_models(server.grpc)}
        assert listed[Model.EMBEDDER] == "READY"
        assert listed[Model.STUDENT] != "READY"
