"""The real parts, each started at the first test that asks for it, on free ports, and ended with the session.

What their processes and the workers wrote is shown with a test that fails.
"""

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:  # tests of plain rules do not wait for the clients of servers that they never ask for
    from keenstream.stack.kafka import KafkaServer
    from keenstream.stack.milvus import MilvusServer
    from keenstream.stack.triton import TritonServer

# Before torch is loaded, and for all processes that tests start: OpenMP's threads, which wait by spinning, make tests
# beside other work many times slower, and small tensors gain nothing by them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHOWN_LOGS, SHOWN_LINES = 8, 30

# The same examples in each run, or a change would be refused for what it did not touch. New ones: --hypothesis-seed=1.
hypothesis.settings.register_profile("steady", derandomize=True)
hypothesis.settings.load_profile("steady")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: "pytest.CallInfo[Any]"
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections += _ends_of_logs(item.config, call.start)
    return report


def _ends_of_logs(config: pytest.Config, since: float) -> list[tuple[str, str]]:
    """The last lines of the logs below the session's folder to which something was written since then."""
    from keenstream.stack.process import last_lines

    base: Path = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    changed = {log: log.stat().st_mtime for log in base.rglob("*log") if _is_log(log)}
    latest = sorted((log for log in changed if changed[log] >= since), key=changed.__getitem__)[-SHOWN_LOGS:]
    return [(f"end of {log.relative_to(base)}", last_lines(log, SHOWN_LINES)) for log in latest]


def _is_log(path: Path) -> bool:
    """Not one of Kafka's segments, whose names are numbers."""
    return path.suffix in ("", ".log") and not path.stem.isdigit() and path.is_file()


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell starts what it puts into the background with SIGINT ignored, and children inherit that: no test of a
    Ctrl-C could pass there."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def quick_java() -> Iterator[None]:
    """Brokers that live for seconds never earn back the work of Java's second compiler: a start takes half as long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
        yield


@pytest.fixture(scope="session")
def kafka_node(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[KafkaServer]":
    from keenstream.stack.kafka import kafka_server

    with kafka_server(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture(scope="session")
def kafka(kafka_node: "KafkaServer") -> str:
    """The bootstrap address of one real broker, shared by the session: use topic and group names of your own."""
    return kafka_node.bootstrap


@pytest.fixture(scope="session")
def milvus_node(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[MilvusServer]":
    from keenstream.stack.milvus import milvus_server

    with milvus_server(tmp_path_factory.mktemp("milvus")) as server:
        yield server


@pytest.fixture(scope="session")
def milvus(milvus_node: "MilvusServer") -> str:
    """The address of one real Milvus, shared by the session: use collection names of your own."""
    return milvus_node.uri


@pytest.fixture(scope="session")
def model_repository() -> Path:
    """The assembled repository of the real models, built once for the state folder."""
    from keenstream.stack.folders import state_folder
    from offline.release.models import build_models

    return build_models(state_folder(), progress=lambda step: None).repository


@pytest.fixture(scope="session")
def served_prompt(model_repository: Path) -> str:
    """The prompt version that the student of the set-up reads: of the shipped one, or of the plain base."""
    from offline.release.manifest import read_manifest
    from schemas.names import Model

    manifest = read_manifest(model_repository / Model.STUDENT / "1" / "weights")
    assert manifest is not None
    return manifest.prompt_version


@pytest.fixture(scope="session")
def triton_node(tmp_path_factory: pytest.TempPathFactory, model_repository: Path) -> "Iterator[TritonServer]":
    from keenstream.stack.triton import triton_server
    from keenstream.stack.triton_probe import probe_triton
    from offline.release.repository import served_models

    models = served_models(model_repository)
    folder = tmp_path_factory.mktemp("triton")
    with triton_server(folder, model_repository, models, probe=lambda grpc: probe_triton(grpc, models)) as server:
        yield server


@pytest.fixture(scope="session")
def triton(triton_node: "TritonServer") -> str:
    """The gRPC address of one real Triton with the real small models."""
    return triton_node.grpc
