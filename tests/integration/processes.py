"""Waiting for what worker processes do."""

import time
from collections.abc import Callable
from contextlib import closing

from kafka import KafkaAdminClient
from kafka.errors import CoordinatorNotAvailableError

from bench._worker import Worker
from schemas.config import Config
from stream.kafka_access import kafka_python_options


def members(config: Config, group: str) -> int:
    """How many workers the consumer group has, once it is stable; 0 before."""
    with closing(KafkaAdminClient(**kafka_python_options(config.kafka))) as admin:
        try:
            described = admin.describe_groups([group])[group]
        except CoordinatorNotAvailableError:  # the cluster has only just made the topic of the groups' offsets
            return 0
    return len(described["members"]) if described["group_state"] == "Stable" else 0


def wait_for(
    condition: Callable[[], bool], what: str, *workers: Worker, timeout_seconds: float = 90.0, every: float = 0.1
) -> None:
    """Until `condition` holds; an AssertionError with the ends of the logs when it does not in time."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        ended = [row for row in workers if row.process.poll() is not None]
        if time.monotonic() > deadline or ended:
            logs = "\n".join(f"--- {row.name} ({row.process.poll()})\n{row.log.read_text()[-3000:]}" for row in workers)
            raise AssertionError(f"{what}: not after {timeout_seconds:.0f} s, or a worker ended\n{logs}")
        time.sleep(every)
