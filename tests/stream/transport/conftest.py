"""Real topics, real worker processes, and what they leave behind."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import CoordinatorNotAvailableError

from keenstream.stack.process import Command, full_argv
from stream.topic_reader import read_topic
from stream.transport import TopicSpec, changelog, create_topics
from tests.groups import expel_members
from tests.stream.transport.worker_program import PARTITIONS, TABLE

TIMEOUT_SECONDS = 90.0
SESSION_SECONDS = 15.0  # a machine that stands still for less makes nobody repeat an event
KILLED_SESSION_SECONDS = 6.0  # the broker's least: so long the next worker waits for one that was killed


def eventually(true: Callable[[], bool], timeout_seconds: float = TIMEOUT_SECONDS) -> bool:
    give_up = time.monotonic() + timeout_seconds
    while not true():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.1)
    return True


class Line(msgspec.Struct, frozen=True):
    topic: str
    partition: int
    offset: int
    key: str
    value: str
    headers: str


class Bench:
    """One test's app, topics, workers, and what each of them was given, on the shared broker."""

    def __init__(self, bootstrap: str, folder: Path, topics: int = 1) -> None:
        self.bootstrap = bootstrap
        self.app_id = f"transport-{uuid.uuid4().hex[:8]}"
        self.topics = [f"{self.app_id}-events-{number}" for number in range(topics)]
        self.folder = folder
        self.given: list[Path] = []  # one file for each worker
        self.workers: list[subprocess.Popen[bytes]] = []
        specs = [TopicSpec(name=name, partitions=PARTITIONS) for name in self.topics]
        create_topics(bootstrap, [*specs, changelog(self.app_id, TABLE, PARTITIONS)])

    def start(self, mode: str = "fold", session_seconds: float = SESSION_SECONDS) -> "subprocess.Popen[bytes]":
        name = f"{self.app_id}-{len(self.workers)}-{mode}"
        given = self.folder / f"{name}.given"
        given.touch()
        self.given.append(given)
        program = [sys.executable, "-m", "tests.stream.transport.worker_program"]
        arguments = [self.bootstrap, self.app_id, str(given), str(session_seconds), mode, *self.topics]
        with (self.folder / f"{name}.log").open("wb") as log:  # shown when the test fails
            worker = subprocess.Popen(
                full_argv(Command(argv=(*program, *arguments))),  # ends with us, however we end
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.workers.append(worker)
        return worker

    def produce(self, count: int, first: int = 0, keys: int = 50, topic: int = 0) -> list[str]:
        """Values `first..first+count-1`, each with the key that its number gives."""
        values = [f"{number:07d}" for number in range(first, first + count)]
        producer = KafkaProducer(bootstrap_servers=self.bootstrap, linger_ms=5)
        for value in values:
            producer.send(self.topics[topic], value.encode(), key=f"k{int(value) % keys}".encode())
        producer.flush()
        producer.close()
        return values

    def lines(self, worker: int | None = None) -> list[Line]:
        """What one worker, or all one after another, was given."""
        files = self.given if worker is None else [self.given[worker]]
        whole = (row for file in files for row in file.read_text().splitlines(keepends=True) if row[-1] == "\n")
        rows = (row.rstrip("\n").split(" ") for row in whole)
        return [Line(row[0], int(row[1]), int(row[2]), row[3], row[4], row[5]) for row in rows]

    def forget_lines(self) -> None:
        for file in self.given:
            file.write_text("")

    def values(self) -> set[str]:
        return {line.value for line in self.lines()}

    def offsets(self) -> list[tuple[str, int, int]]:
        return [(line.topic, line.partition, line.offset) for line in self.lines()]

    def committed(self) -> dict[tuple[str, int], int]:
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            found = admin.list_group_offsets({self.app_id: None})[self.app_id]
            return {(tp.topic, tp.partition): at.offset for tp, at in found.items() if at.offset >= 0}
        except CoordinatorNotAvailableError:  # the first group of a new broker
            return {}
        finally:
            admin.close()

    def ends(self) -> dict[tuple[str, int], int]:
        """One past the last record that a reader of committed records can see, for partitions that have records."""
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap)
        tps = [TopicPartition(name, partition) for name in self.topics for partition in range(PARTITIONS)]
        try:
            return {(tp.topic, tp.partition): end for tp, end in consumer.end_offsets(tps).items() if end}
        finally:
            consumer.close()

    def state(self) -> dict[bytes, bytes]:
        """The rows that the changelog gives to the next worker."""
        changes = read_topic(self.bootstrap, f"{self.app_id}-{TABLE}-changelog", timeout_seconds=TIMEOUT_SECONDS)
        rows = {record.key: record.value for record in changes}
        return {key: value for key, value in rows.items() if value is not None}

    def end(self, worker: "subprocess.Popen[bytes]", how: signal.Signals = signal.SIGTERM) -> int:
        os.killpg(worker.pid, how)
        return self.ended(worker)

    def ended(self, worker: "subprocess.Popen[bytes]") -> int:
        return worker.wait(TIMEOUT_SECONDS)

    def kill(self, worker: "subprocess.Popen[bytes]") -> None:
        """SIGKILL to the only worker; the next one need not wait until its session has expired."""
        self.end(worker, signal.SIGKILL)
        expel_members(self.bootstrap, self.app_id)

    def close(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                self.end(worker, signal.SIGKILL)


@pytest.fixture
def bench(kafka: str, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(kafka, tmp_path)
    yield made
    made.close()


@pytest.fixture
def bench_of_two_topics(kafka: str, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(kafka, tmp_path, topics=2)
    yield made
    made.close()
