"""The profile worker on a real broker: whatever happens to it, its profiles are those of a plain offline fold."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from bench._worker import Worker, worker
from keenstream.stack.kafka import kafka_server
from schemas.config import Config, Kafka, Profiles
from schemas.event import Event
from schemas.names import App, Topic
from stream.dead_letters import read_dead_letter
from stream.producer import KafkaProducer, Outgoing
from stream.topic_reader import read_topic
from stream.topics import all_topics
from stream.transport import create_topics
from tests.groups import expel_members
from tests.integration.histories import history, offline_fold, send_events, stored_profiles
from tests.integration.processes import members, wait_for

pytestmark = [pytest.mark.stack]
EVENTS, READERS = 100_000, 400


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    """A broker of its own, so that the names of topics and groups are the real ones; small flushes, so that many are in
    flight when something happens."""
    with kafka_server(tmp_path / "kafka") as server:
        config = Config(
            kafka=Kafka(bootstrap=server.bootstrap, session_timeout_seconds=15.0),
            profiles=Profiles(flush_records=4_000, flush_seconds=0.2),
        )
        create_topics(server.bootstrap, all_topics(config))
        yield config


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return history(EVENTS, READERS, seed=1)


def processed(*workers: Worker) -> float:
    names = ("keenstream_events_folded_total", "keenstream_events_unchanged_total", "keenstream_events_dropped_total")
    return sum(row.metric(name) for row in workers for name in names)


def wait_until_equal(config: Config, expected: dict[str, bytes], *workers: Worker) -> None:
    wait_for(
        lambda: stored_profiles(config.kafka.bootstrap) == expected,
        "profiles",
        *workers,
        timeout_seconds=120,
        every=1.0,
    )


def test_duplicates_and_disorder_change_nothing(config: Config, events: list[Event], tmp_path: Path) -> None:
    with worker("profiles", config, tmp_path) as only:
        asyncio.run(send_events(config.kafka.bootstrap, events))
        wait_for(lambda: processed(only) >= len(events), "fold", only)
        assert stored_profiles(config.kafka.bootstrap) == offline_fold(events, config)
        assert only.metric("keenstream_events_dropped_total", reason="login") > 0
        assert only.stop() == 0


@pytest.mark.fault
def test_sigkill_in_the_middle_loses_and_repeats_nothing(config: Config, events: list[Event], tmp_path: Path) -> None:
    third = len(events) // 3
    for number in range(2):  # what comes later is sent later, so that a kill always comes before the end
        asyncio.run(send_events(config.kafka.bootstrap, events[number * third : (number + 1) * third]))
        with worker("profiles", config, tmp_path) as killed:
            wait_for(lambda: processed(killed) > 5_000, "fold", killed, every=0.01)
            killed.kill()
        expel_members(config.kafka.bootstrap, App.PROFILES)
    asyncio.run(send_events(config.kafka.bootstrap, events[2 * third :]))
    with worker("profiles", config, tmp_path) as last:
        wait_until_equal(config, offline_fold(events, config), last)
        assert last.stop() == 0


def test_workers_that_join_and_leave_change_nothing(config: Config, events: list[Event], tmp_path: Path) -> None:
    """A second and a third worker join, the third leaves, then the first."""
    quarter = len(events) // 4

    def send(number: int) -> None:
        asyncio.run(send_events(config.kafka.bootstrap, events[number * quarter : (number + 1) * quarter]))

    with ExitStack() as stack:

        def started() -> Worker:
            return stack.enter_context(worker("profiles", config, tmp_path))

        def stable(*workers: Worker) -> None:
            wait_for(lambda: members(config, App.PROFILES) == len(workers), f"{len(workers)} members", *workers)

        first = started()
        send(0)
        wait_for(lambda: processed(first) > 0, "fold", first)
        second, third = started(), started()
        stable(first, second, third)
        send(1)
        for newcomer in (second, third):
            wait_for(lambda worker=newcomer: processed(worker) > 0, "a share", first, second, third)  # type: ignore[misc]
        send(2)
        assert third.stop() == 0
        stable(first, second)
        assert first.stop() == 0
        asyncio.run(send_events(config.kafka.bootstrap, events[3 * quarter :]))
        wait_until_equal(config, offline_fold(events, config), second)
        assert second.stop() == 0


def test_what_does_not_decode_is_a_dead_letter_before_the_offset_is_committed(config: Config, tmp_path: Path) -> None:
    bad = [b"not json", b'{"kind": "page"}', b"\xff", b'{"text": "' + b"x" * 1_048_400 + b'"}', b""]
    good = history(10, 3, seed=2)

    async def send() -> None:
        async with KafkaProducer(config.kafka.bootstrap) as producer:
            await producer.send([Outgoing(Topic.USER_EVENTS, b"reader", value) for value in bad])

    asyncio.run(send())
    asyncio.run(send_events(config.kafka.bootstrap, good))
    with worker("profiles", config, tmp_path) as only:
        wait_until_equal(config, offline_fold(good, config), only)
        wait_for(lambda: only.metric("keenstream_dead_letters_total") == len(bad), "dead letters", only)
        assert only.stop() == 0
    letters = [
        read_dead_letter(dict(record.headers), record.value)
        for record in read_topic(config.kafka.bootstrap, Topic.DEAD_LETTERS)
    ]
    assert sorted(letter.value for letter in letters) == sorted(bad)
    assert all(letter.reason and letter.source_topic == Topic.USER_EVENTS for letter in letters)


def refusal(config: Config, tmp_path: Path) -> str:
    with worker("profiles", config, tmp_path) as refused:
        assert refused.process.wait(120) == 2
        return refused.log.read_text()


def test_wrong_partition_counts_refuse_to_start(config: Config, tmp_path: Path) -> None:
    more = msgspec.structs.replace(config, kafka=msgspec.structs.replace(config.kafka, partitions=8))
    assert "has 4 partitions where 8 are set" in refusal(more, tmp_path)


def test_a_changelog_that_deletes_refuses_to_start(tmp_path: Path) -> None:
    with kafka_server(tmp_path / "kafka") as server:
        config = Config(kafka=Kafka(bootstrap=server.bootstrap))
        specs = [
            msgspec.structs.replace(spec, compacted=False, config={"cleanup.policy": "compact,delete"})
            if spec.name == Topic.PROFILES_CHANGELOG
            else spec
            for spec in all_topics(config)
        ]
        create_topics(server.bootstrap, specs)
        assert "cleanup.policy=compact,delete" in refusal(config, tmp_path)
