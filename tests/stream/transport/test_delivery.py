"""What the batch transport delivers and commits on a real broker, beside the plain driver."""

import itertools
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from kafka import KafkaProducer

from stream.topic_reader import read_topic
from stream.transport import TopicSpec, create_topics
from tests.stream.transport.conftest import TIMEOUT_SECONDS, Bench, Line, eventually
from tests.stream.transport.worker_program import PARTITIONS, STALL_SECONDS

pytestmark = pytest.mark.stack


def by_partition(lines: Iterable[Line]) -> dict[tuple[str, int], list[Line]]:
    """In the order of delivery."""
    found: dict[tuple[str, int], list[Line]] = {}
    for line in lines:
        found.setdefault((line.topic, line.partition), []).append(line)
    return found


def ids_by_key(values: Iterable[str], keys: int = 50) -> dict[bytes, bytes]:
    grouped = itertools.groupby(sorted(values, key=lambda v: (int(v) % keys, v)), key=lambda v: int(v) % keys)
    return {f"k{key}".encode(): " ".join(group).encode() for key, group in grouped}


def test_every_partition_of_every_topic_in_order_as_the_plain_driver(
    bench_of_two_topics: Bench, tmp_path: Path
) -> None:
    bench = bench_of_two_topics
    for topic in range(2):
        bench.produce(1500, first=topic * 10_000, topic=topic)
    producer = KafkaProducer(bootstrap_servers=bench.bootstrap)
    producer.send(bench.topics[0], b"with-headers", key=b"k1", headers=[("a", b"1"), ("b", b"2")])
    producer.send(bench.topics[0], None, key=b"k2")
    producer.send(bench.topics[1], b"without-key")
    producer.flush()
    producer.close()
    bench.end(run_until(bench, "fold", 3003))
    ours = by_partition(bench.lines())
    plain = Bench(bench.bootstrap, tmp_path)
    plain.topics = bench.topics
    try:
        plain.end(run_until(plain, "plain", 3003))
        theirs = by_partition(plain.lines())
    finally:
        plain.close()
    assert ours == theirs
    assert len(ours) == 2 * PARTITIONS
    assert bench.committed() == bench.ends()


def run_until(bench: Bench, mode: str, count: int) -> "subprocess.Popen[bytes]":
    worker = bench.start(mode)
    assert eventually(lambda: len(bench.lines()) >= count)
    return worker


def test_records_that_come_one_by_one_are_delivered_once_and_committed(bench: Bench) -> None:
    worker = bench.start()
    expected: list[str] = []

    def arrived() -> bool:
        return len(bench.lines()) == len(expected)

    for number in range(5):  # empty polls in between
        expected += bench.produce(1, first=number)
        assert eventually(arrived)
    assert eventually(lambda: bench.committed() == bench.ends())
    assert bench.end(worker) == 0
    assert [line.value for line in bench.lines()] == expected


def test_a_stop_finishes_what_is_in_hand_and_the_next_worker_repeats_nothing(bench: Bench) -> None:
    values = bench.produce(3000)
    worker = bench.start()
    assert eventually(lambda: len(bench.lines()) > 0)
    assert bench.end(worker) == 0
    values += bench.produce(10, first=3000)
    next_worker = bench.start()
    assert eventually(lambda: bench.values() == set(values))
    assert bench.end(next_worker, signal.SIGINT) == 0
    assert len(bench.lines()) == len(values)
    assert bench.state() == ids_by_key(values)


def test_holes_left_by_transactions_hold_up_no_commit(bench: Bench) -> None:
    producer = KafkaProducer(bootstrap_servers=bench.bootstrap, transactional_id=bench.app_id)
    producer.init_transactions()
    kept = []
    for number in range(12):
        producer.begin_transaction()
        for partition in range(PARTITIONS):
            value = f"{number}-{partition}"
            producer.send(bench.topics[0], value.encode(), key=b"k", partition=partition)
            if number % 3:
                kept.append(value)
        if number % 3:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
    worker = bench.start()
    assert eventually(lambda: bench.values() == set(kept))
    # one past the last record: the last marker holds no event
    assert eventually(lambda: bench.committed() == {at: end - 1 for at, end in bench.ends().items()})
    producer.begin_transaction()
    producer.send(bench.topics[0], b"after", key=b"k", partition=0)
    producer.commit_transaction()
    producer.close()
    assert eventually(lambda: "after" in bench.values())
    assert bench.end(worker) == 0
    assert len(bench.lines()) == len(kept) + 1


def test_holes_left_by_compaction_hold_up_no_commit(bench: Bench) -> None:
    config = {"segment.ms": "100", "min.cleanable.dirty.ratio": "0.001", "min.compaction.lag.ms": "0"}
    bench.topics = [f"{bench.app_id}-compacted"]
    spec = TopicSpec(name=bench.topics[0], partitions=PARTITIONS, compacted=True, config=config)
    create_topics(bench.bootstrap, [spec])
    for first in range(0, 3000, 300):  # newer segments, so that the older ones may be cleaned
        bench.produce(300, first=first, keys=7)
        time.sleep(0.15)
    assert eventually(lambda: readable(bench) < 1500)  # the broker's cleaner looks every 15 s
    worker = bench.start()
    assert eventually(lambda: bench.committed() == bench.ends())
    assert bench.end(worker) == 0
    assert {f"{value:07d}" for value in range(2993, 3000)} <= bench.values()
    assert len(bench.lines()) < 1500


def readable(bench: Bench) -> int:
    return sum(1 for _ in read_topic(bench.bootstrap, bench.topics[0], timeout_seconds=TIMEOUT_SECONDS))


def test_a_partition_with_nothing_but_aborted_records_is_no_stall(bench: Bench) -> None:
    producer = KafkaProducer(bootstrap_servers=bench.bootstrap, transactional_id=bench.app_id)
    producer.init_transactions()
    producer.begin_transaction()
    for partition in range(PARTITIONS):
        producer.send(bench.topics[0], b"never", key=b"k", partition=partition)
    producer.flush()
    producer.abort_transaction()
    producer.close()
    worker = bench.start("watched")
    values = bench.produce(40)
    assert eventually(lambda: bench.values() == set(values))
    assert eventually(lambda: bench.committed() == bench.ends())
    producer = KafkaProducer(bootstrap_servers=bench.bootstrap, transactional_id=bench.app_id)
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(bench.topics[0], b"never", key=b"k", partition=0)
    producer.flush()
    producer.abort_transaction()
    producer.close()
    time.sleep(STALL_SECONDS + 1.0)  # one that stalls would be gone
    assert worker.poll() is None
    assert bench.end(worker) == 0


def test_pausing_and_resuming_partitions_loses_and_repeats_nothing(bench: Bench) -> None:
    worker = bench.start("pause")
    values = bench.produce(1500)
    assert eventually(lambda: bench.values() == set(values))
    assert eventually(lambda: bench.committed() == bench.ends())
    assert bench.end(worker) == 0
    assert sorted(line.value for line in bench.lines()) == values


def test_a_commit_that_failed_is_tried_again_without_new_records(bench: Bench) -> None:
    values = bench.produce(100)
    worker = bench.start("forgetful")
    assert eventually(lambda: bench.values() == set(values))
    assert eventually(lambda: bench.committed() == bench.ends())
    assert bench.end(worker) == 0
