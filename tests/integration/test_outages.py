"""Triton or Milvus away: folding goes on, nothing is lost, and the lists follow once the part is back."""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from bench._worker import Worker, worker
from keenstream.stack.kafka import kafka_server
from keenstream.stack.milvus import milvus_server
from keenstream.stack.ports import free_ports
from keenstream.stack.triton import TritonPorts, triton_server
from keenstream.stack.triton_probe import probe_triton
from keenstream.workers import prepare
from schemas.clients.milvus import MilvusStore
from schemas.clients.vector_store import STUDENT_SLOTS
from schemas.config import Config, Kafka, Milvus, Refresh, Triton
from schemas.names import Model
from tests.integration.histories import history, offline_fold, send_events, stored_profiles
from tests.integration.processes import wait_for

pytestmark = [pytest.mark.stack, pytest.mark.fault]
MODELS = (Model.STUDENT, Model.EMBEDDER)
READERS = 12
AWAY_SECONDS = float(os.environ.get("KEENSTREAM_TEST_AWAY_SECONDS", "5"))  # longer than some retries; 60 by hand


class Parts:
    """Real parts on fixed ports, each of which can go away and come back with its data."""

    def __init__(self, folder: Path, repository: Path) -> None:
        kafka, milvus, *triton = free_ports(5)
        self._folder, self._repository = folder, repository
        self._kafka_port, self._milvus_port = kafka, milvus
        self._triton_ports = TritonPorts(grpc=triton[0], http=triton[1], metrics=triton[2])
        self.config = Config(
            kafka=Kafka(bootstrap=f"127.0.0.1:{kafka}", session_timeout_seconds=6.0),
            milvus=Milvus(uri=f"http://127.0.0.1:{milvus}", timeout_seconds=3.0),
            triton=Triton(grpc_address=f"127.0.0.1:{triton[0]}"),
            refresh=Refresh(interval_seconds=1.0, pending_seconds=1.0),
        )

    def kafka(self) -> AbstractContextManager[object]:
        return kafka_server(self._folder / "kafka", self._kafka_port)

    def milvus(self) -> AbstractContextManager[object]:
        return milvus_server(self._folder / "milvus", self._milvus_port)

    def triton(self) -> AbstractContextManager[object]:
        return triton_server(
            self._folder / "triton",
            self._repository,
            MODELS,
            ports=self._triton_ports,
            probe=lambda grpc: probe_triton(grpc, MODELS),
        )


@pytest.fixture
def parts(tmp_path: Path, model_repository: Path) -> Iterator[Parts]:
    parts = Parts(tmp_path, model_repository)
    with parts.kafka():
        yield parts


async def readers_with_lists(config: Config) -> int:
    """How many readers have rows of the student and of their signals."""
    store = MilvusStore(config.milvus)
    try:
        found = [await store.user_queries(f"reader-{n:05d}", now_ms=1, strong=True) for n in range(READERS)]
    finally:
        await store.close()
    return sum(len({row.slot in STUDENT_SLOTS for row in rows}) == 2 for rows in found)


def workers(stack: ExitStack, parts: Parts, folder: Path) -> list[Worker]:
    return [stack.enter_context(worker(name, parts.config, folder)) for name in ("profiles", "signals", "interests")]


@pytest.mark.parametrize("away", ["triton", "milvus"])
def test_folding_goes_on_and_lists_follow(parts: Parts, tmp_path: Path, away: str) -> None:
    events = history(300, READERS, seed=3)
    with ExitStack() as stack:
        stays = parts.milvus() if away == "triton" else parts.triton()
        stack.enter_context(stays)
        if away == "milvus":
            with parts.milvus():
                prepare(parts.config)
        else:
            prepare(parts.config)
        running = workers(stack, parts, tmp_path)
        asyncio.run(send_events(parts.config.kafka.bootstrap, events))
        expected = offline_fold(events, parts.config)
        wait_for(lambda: stored_profiles(parts.config.kafka.bootstrap) == expected, "folding", *running, every=1.0)
        signals = running[1]
        wait_for(lambda: signals.metric("keenstream_retries_total") > 0, "an attempt while it is away", *running)
        time.sleep(AWAY_SECONDS)
        assert signals.metric("keenstream_lists_total") == 0
        stack.enter_context(parts.triton() if away == "triton" else parts.milvus())
        wait_for(
            lambda: asyncio.run(readers_with_lists(parts.config)) == READERS,
            "lists once it is back",
            *running,
            timeout_seconds=180,
            every=2.0,
        )
        assert [row.stop() for row in running] == [0, 0, 0]
