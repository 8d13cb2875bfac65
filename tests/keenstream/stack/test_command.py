"""`keenstream stack` as a user types it, on the real Kafka, Triton and Milvus, while the usual ports are taken."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from tritonclient.utils import InferenceServerException

from keenstream.stack.folders import HOME_VARIABLE, cache_folder
from keenstream.stack.kafka import probe_kafka
from keenstream.stack.milvus import probe_milvus
from keenstream.stack.shared_memory import SHARED_MEMORY, shared_memory_prefix
from keenstream.stack.state import live_state, processes_of
from keenstream.stack.triton_probe import probe_triton
from schemas.names import Model
from tests.keenstream.stack.programs import eventually

pytestmark = pytest.mark.stack

Done = subprocess.CompletedProcess[str]
USUAL_PORTS = (9092, 8001, 19530, 2379, 2380)


@pytest.fixture
def home(tmp_path: Path, model_repository: Path) -> Iterator[Path]:
    """A state folder that shares what was fetched and built with the session's."""
    (tmp_path / "cache").symlink_to(cache_folder())
    (tmp_path / "models").symlink_to(model_repository.parent)
    yield tmp_path
    keenstream("stack", "down", home=tmp_path)


def keenstream(
    *arguments: str, home: Path, more: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "keenstream.cli", *arguments]
    environment = {**os.environ, HOME_VARIABLE: str(home), **(more or {})}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=300)


def answer(done: Done) -> Any:
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def take(ports: tuple[int, ...]) -> ExitStack:
    """Hold those of the ports that nobody holds already."""
    held = ExitStack()
    for port in ports:
        listener = held.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen()
        except OSError:
            continue
    return held


def test_up_on_taken_ports_then_a_killed_broker_and_model_then_down(home: Path) -> None:
    with take(USUAL_PORTS):
        up = keenstream("stack", "up", "--json", home=home)
    assert up.returncode == 0, up.stderr
    parts = {part["name"]: part for part in answer(up)["parts"]}
    assert set(parts) == {"kafka", "milvus", "triton"}
    assert not any(part["address"].endswith((":9092", ":8001", ":19530")) for part in parts.values())
    probe_kafka(parts["kafka"]["address"])
    probe_milvus(parts["milvus"]["address"])
    probe_triton(parts["triton"]["address"], (Model.STUDENT, Model.EMBEDDER))

    os.kill(parts["kafka"]["pid"], signal.SIGKILL)
    kill_model_process(parts["triton"]["pid"], Model.STUDENT)
    eventually(lambda: (state := live_state(home)) and state.part("kafka").restarts == 1 and state.ready, seconds=120)
    probe_kafka(parts["kafka"]["address"])
    eventually(lambda: answers(parts["triton"]["address"]), seconds=180)

    state = live_state(home)
    assert state
    assert state.part("triton").restarts == 0  # the model was loaded anew, the embedder served on
    ports = listening(processes_of(state.run_id))
    assert keenstream("stack", "down", home=home).returncode == 0
    assert processes_of(state.run_id) == []
    assert not list(SHARED_MEMORY.glob(shared_memory_prefix(home / "triton") + "*"))
    assert not ports & listening(psutil.process_iter())


def kill_model_process(server: int, model: str) -> None:
    for child in psutil.Process(server).children():
        if any(f"/{model}/" in argument for argument in child.cmdline()):
            child.kill()


def answers(grpc: str) -> bool:
    try:
        probe_triton(grpc, (Model.STUDENT, Model.EMBEDDER))
    except InferenceServerException:
        return False
    return True


def listening(processes: Any) -> set[int]:
    found = set()
    for process in processes:
        try:
            connections = process.net_connections("tcp")
        except psutil.Error:
            continue
        found |= {connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN}
    return found


def test_a_port_that_the_settings_fix_is_not_moved(home: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        fixed = {"KEENSTREAM_KAFKA_BOOTSTRAP": f"127.0.0.1:{port}"}
        done = keenstream("stack", "up", "--no-models", home=home, more=fixed)
    assert done.returncode != 0
    assert f"port {port} (kafka.bootstrap) is held by" in " ".join(done.stderr.split())


def test_status_and_down_without_a_stack(home: Path) -> None:
    status = keenstream("stack", "status", "--json", home=home)
    assert (status.returncode, answer(status)["ready"]) == (1, False)
    down = keenstream("stack", "down", "--json", home=home)
    assert (down.returncode, answer(down)) == (0, {"ended": False, "left_over": 0})


def test_ctrl_c_while_starting_leaves_nothing(home: Path) -> None:
    argv = [sys.executable, "-m", "keenstream.cli", "stack", "up", "--no-models"]
    with subprocess.Popen(argv, env={**os.environ, HOME_VARIABLE: str(home)}, stdout=subprocess.PIPE) as up:
        eventually(lambda: (state := live_state(home)) and state.part("kafka").status == "starting")
        state = live_state(home)
        assert state
        up.send_signal(signal.SIGINT)
        assert up.wait(120) == 130
    assert processes_of(state.run_id) == []
    assert live_state(home) is None


@pytest.mark.parametrize("command", ["up", "status", "down"])
def test_help_has_an_example(command: str, home: Path) -> None:
    done = keenstream("stack", command, "--help", home=home)
    assert done.returncode == 0
    assert f"keenstream stack {command}" in done.stdout
    assert "--json" in done.stdout
