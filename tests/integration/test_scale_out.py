"""Several workers of each kind on a cluster of three brokers: workers stop and join, a broker dies, nothing changes.

Prints events/s with one and with two profile workers: sent and folded, brokers and producer on the same machine.
"""

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench._worker import Worker, worker
from keenstream.commands.console import console
from schemas.clients.milvus import MilvusStore
from schemas.codec import LISTS
from schemas.config import Config, Kafka, Milvus, Profiles, Refresh, Triton
from schemas.errors import Unavailable
from schemas.event import Event
from schemas.names import App, Topic
from schemas.profile import decode_profile, fingerprint
from schemas.queries import QueryList
from stream.topic_reader import read_topic
from stream.topics import all_topics
from stream.transport import create_topics
from tests.integration.clusters import Cluster, kafka_cluster
from tests.integration.histories import history, offline_fold, send_events, stored_profiles
from tests.integration.processes import members, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.fault]
EVENTS = int(os.environ.get("KEENSTREAM_TEST_SCALE_EVENTS", "12000"))  # 400000 by hand, for figures that mean more
READERS = 16
SECONDS = 180.0  # to wait at most; a dead broker alone costs ten


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with kafka_cluster(tmp_path / "kafka") as found:
        yield found


@pytest.fixture
def config(cluster: Cluster, milvus: str, triton: str) -> Config:
    config = Config(
        kafka=Kafka(bootstrap=cluster.bootstrap, replication_factor=3, session_timeout_seconds=10.0),
        milvus=Milvus(uri=milvus),
        triton=Triton(grpc_address=triton),
        profiles=Profiles(flush_records=4_000, flush_seconds=0.2),
        refresh=Refresh(interval_seconds=5.0, pending_seconds=2.0),
    )
    create_topics(config.kafka, all_topics(config), replication_factor=3)
    asyncio.run(_prepare(config))
    return config


async def _prepare(config: Config) -> None:
    store = MilvusStore(config.milvus)
    await store.prepare()
    await store.close()


async def send_surely(config: Config, events: Sequence[Event]) -> None:
    """Until the brokers have all: sending again is harmless."""
    for first in range(0, len(events), 2_000):
        for _ in range(10):
            try:
                await send_events(config.kafka, events[first : first + 2_000])
                break
            except Unavailable:
                await asyncio.sleep(1)
        else:
            raise AssertionError("the cluster takes no events")


def folded(workers: Sequence[Worker]) -> float:
    names = ("keenstream_events_folded_total", "keenstream_events_unchanged_total", "keenstream_events_dropped_total")
    return sum(row.metric(name) for row in workers for name in names)


def rate(config: Config, events: Sequence[Event], *workers: Worker) -> float:
    """Events sent and folded a second."""
    before, started = folded(workers), time.monotonic()
    asyncio.run(send_events(config.kafka, events))
    wait_for(lambda: folded(workers) - before >= len(events), "fold", *workers, every=0.02, timeout_seconds=SECONDS)
    return len(events) / (time.monotonic() - started)


def newest_lists(config: Config) -> dict[str, QueryList]:
    records = read_topic(config.kafka, Topic.QUERY_LISTS)
    lists = [LISTS.decode(record.value) for record in records if record.value is not None]
    ours = [row for row in lists if row.source == "student" or row.queries]
    return {row.user_id: row for row in sorted(ours, key=lambda row: row.generated_at)}


def test_workers_and_brokers_come_and_go(
    cluster: Cluster, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = history(EVENTS, READERS, seed=11)
    quarter = len(events) // 4
    parts = [events[:quarter], events[quarter : 2 * quarter], events[2 * quarter : 3 * quarter], events[3 * quarter :]]

    with ExitStack() as stack:

        def started(name: str) -> Worker:
            return stack.enter_context(worker(name, config, tmp_path))

        def joined(group: str, *workers: Worker) -> None:
            wait_for(lambda: members(config, group) == len(workers), group, *workers, timeout_seconds=SECONDS)

        first, lists_one, lists_two = started("profiles"), started("interests"), started("interests")
        joined(App.PROFILES, first)
        one = rate(config, parts[0], first)
        second = started("profiles")
        joined(App.PROFILES, first, second)
        joined(App.INTERESTS, lists_one, lists_two)
        two = rate(config, parts[1], first, second)
        with capsys.disabled():
            console.print(
                f"\nsent and folded, {os.cpu_count()} cores: {one:,.0f} events/s by 1 worker, {two:,.0f} by 2"
            )

        cluster.kill(1)
        asyncio.run(send_surely(config, parts[2]))
        expected = offline_fold([event for part in parts[:3] for event in part], config)
        wait_for(
            lambda: stored_profiles(config.kafka) == expected,
            "profiles without a broker", first, second, timeout_seconds=SECONDS, every=1.0,
        )  # fmt: skip

        third, lists_three = started("profiles"), started("interests")
        assert (first.stop(), lists_one.stop()) == (0, 0)
        asyncio.run(send_surely(config, parts[3]))
        joined(App.PROFILES, second, third)
        expected = offline_fold(events, config)
        wait_for(
            lambda: stored_profiles(config.kafka) == expected,
            "profiles", second, third, timeout_seconds=SECONDS, every=1.0,
        )  # fmt: skip
        wanted = {user: fingerprint(decode_profile(data)) for user, data in expected.items()}
        wait_for(
            lambda: {user: row.profile_fingerprint for user, row in newest_lists(config).items()} == wanted,
            "a list of each reader's last profile", lists_two, lists_three, timeout_seconds=SECONDS, every=1.0,
        )  # fmt: skip
        assert [row.stop() for row in (second, third, lists_two, lists_three)] == [0, 0, 0, 0]
