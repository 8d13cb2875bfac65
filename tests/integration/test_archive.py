"""The archive worker on a real broker: each record in exactly one file, whatever happens to the workers."""

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaAdminClient
from kafka.errors import CoordinatorNotAvailableError, GroupIdNotFoundError

from bench._worker import Worker, worker
from keenstream.stack.kafka import ensure_jars, kafka_command, probe_kafka
from keenstream.stack.ports import LOCAL, free_ports
from keenstream.stack.process import end, start, wait_ready
from schemas.archive import ARRIVED, IMPLAUSIBLE, OFFSET, PARTITION, READER, archive_files, read_archive_file, records
from schemas.codec import ERASURES, EVENTS
from schemas.config import Archive, Config, Kafka, environment_of
from schemas.erasure import Erasure
from schemas.event import Event
from schemas.names import App, Topic
from stream.archive.erasing import erase_from_archive, find_in_archive
from stream.archive.ranges import Ranges
from stream.archive.verifying import PartitionProof, verify_archive
from stream.dead_letters import read_dead_letter
from stream.producer import KafkaProducer, Outgoing
from stream.topic_reader import read_topic
from stream.topics import all_topics
from stream.transport import create_topics
from tests.integration.histories import history, offline_fold, send_events, stored_profiles
from tests.integration.processes import wait_for

pytestmark = [pytest.mark.stack]
KILLS = int(os.environ.get("KEENSTREAM_TEST_KILLS", "50"))
NOW = int(time.time() * 1000)
DAY = 86_400_000
BROKEN = b"not JSON"
Origin = tuple[int, int]  # partition, offset


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker for these tests, with the real names of topics and the group; it gives up on a member of a group after
    a second, so that many kills do not take minutes."""
    folder = tmp_path_factory.mktemp("broker")
    port, controller = free_ports(2)
    bootstrap, log = f"{LOCAL}:{port}", folder / "kafka.log"
    command = kafka_command(folder / "kafka", ensure_jars(), port, controller)
    with (folder / "kafka" / "server.properties").open("a") as properties:
        properties.write("group.min.session.timeout.ms=500\n")
    process = start(command, log)
    try:
        wait_ready("kafka", process, partial(probe_kafka, bootstrap), log, 60.0)
        create_topics(bootstrap, all_topics(Config(kafka=Kafka(bootstrap=bootstrap))))
        yield bootstrap
    finally:
        end(process, 10.0)


@pytest.fixture
def config(broker: str, tmp_path: Path) -> Config:
    """An archive and a group that begin anew: each test archives what the earlier ones have sent, too."""
    with (
        closing(KafkaAdminClient(bootstrap_servers=broker)) as admin,
        suppress(GroupIdNotFoundError, CoordinatorNotAvailableError),
    ):
        admin.delete_groups([App.ARCHIVE])
    return Config(
        kafka=Kafka(bootstrap=broker, session_timeout_seconds=1.5), archive=Archive(folder=str(tmp_path / "archive"))
    )


def rolling(config: Config, records: int, seconds: float) -> Config:
    limits = msgspec.structs.replace(config.archive, roll_records=records, roll_seconds=seconds)
    return msgspec.structs.replace(config, archive=limits)


def sent(config: Config, users: str) -> Counter[tuple[Origin, str]]:
    """Origin and id of every event that the broker has of readers whose id begins so."""
    found = [row for row in read_topic(config.kafka.bootstrap, Topic.USER_EVENTS) if row.key.startswith(users.encode())]
    return Counter(((row.partition, row.offset), EVENTS.decode(row.value).event_id) for row in found)


def archived(config: Config, users: str = "") -> Counter[tuple[Origin, str]]:
    """The same of every row of every file; one that is there twice counts twice."""
    found = Counter[tuple[Origin, str]]()
    for path in archive_files(Path(config.archive.folder), Topic.USER_EVENTS):
        table = read_archive_file(path, Topic.USER_EVENTS)
        columns = (table.column(name).to_pylist() for name in (PARTITION, OFFSET, "event_id", READER))
        rows = zip(*columns, strict=True)
        found.update(((partition, at), event_id) for partition, at, event_id, user in rows if user.startswith(users))
    return found


def proofs(config: Config) -> list[PartitionProof]:
    return verify_archive(Path(config.archive.folder), config)


def caught_up(config: Config) -> bool:
    return Path(config.archive.folder).is_dir() and all(proof.behind == 0 for proof in proofs(config))


def faults(config: Config) -> list[str]:
    return [fault for proof in proofs(config) for fault in proof.faults]


def send(bootstrap: str, *messages: Outgoing) -> None:
    async def deliver() -> None:
        async with KafkaProducer(bootstrap) as producer:
            await producer.send(messages)

    asyncio.run(deliver())


def outgoing(event: Event) -> Outgoing:
    return Outgoing(Topic.USER_EVENTS, event.user_id.encode(), EVENTS.encode(event))


def event(number: int, user: str = "reader", at: int = NOW, consent: bool = True) -> Event:
    return Event(
        event_id=f"e{number}", user_id=user, kind="page", text=f"page {number}", occurred_at=at, consent=consent
    )


class Traffic:
    """Events sent in the background, of today and of the days before, until it is left."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap, self._stop = bootstrap, threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send()))

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _send(self) -> None:
        rng, number = random.Random(5), 0
        async with KafkaProducer(self._bootstrap) as producer:
            while not self._stop.is_set():
                batch = [self._event(number + place, rng) for place in range(200)]
                await producer.send([outgoing(row) for row in batch])
                number += len(batch)
                await asyncio.sleep(0.05)

    def _event(self, number: int, rng: random.Random) -> Event:
        return event(number, f"traffic-{rng.randrange(50)}", NOW - rng.choice([0, 0, 0, 1, 9]) * DAY)


def test_a_worker_that_is_told_to_stop_writes_what_it_has_in_hand_and_another_goes_on(
    config: Config, tmp_path: Path
) -> None:
    events = [msgspec.structs.replace(row, user_id=f"handed-{row.user_id}") for row in history(3_000, 40, seed=4)]
    broker = config.kafka.bootstrap
    with ExitStack() as stack:
        first = stack.enter_context(worker("archive", config, tmp_path))
        asyncio.run(send_events(broker, events[:1_000]))
        wait_for(lambda: first.metric("keenstream_archive_in_hand") >= 1_000, "records in hand", first)
        second = stack.enter_context(worker("archive", config, tmp_path))
        asyncio.run(send_events(broker, events[1_000:2_000]))
        wait_for(lambda: second.metric("keenstream_archive_in_hand") > 0, "a share for the second", first, second)
        assert first.stop() == 0
        asyncio.run(send_events(broker, events[2_000:]))
        wait_for(lambda: in_hand_or_files(config, second), "all of it", second, every=0.5)
        assert second.stop() == 0
    assert faults(config) == []
    assert caught_up(config)
    assert all(proof.committed == proof.next for proof in proofs(config) if proof.ranges)
    assert archived(config, "handed") == sent(config, "handed")
    assert sent(config, "handed").total() == len(events)


def in_hand_or_files(config: Config, only: Worker) -> bool:
    """Whether the worker has read all that the archive does not have yet."""
    return sum(proof.behind for proof in proofs(config)) <= only.metric("keenstream_archive_in_hand")


def test_late_absurd_broken_and_unwanted_records_each_have_their_place(config: Config, tmp_path: Path) -> None:
    config, broker = rolling(config, 500, 0.5), config.kafka.bootstrap
    odd = [event(1, "odd"), event(2, "odd", NOW - 30 * DAY), event(3, "odd", 0), event(4, "odd", 4_070_908_800_000)]
    refused = event(5, "odd", consent=False)
    send(
        broker,
        *map(outgoing, [*odd, refused]),
        Outgoing(Topic.USER_EVENTS, b"odd", BROKEN),
        Outgoing(Topic.QUERY_LISTS, b"odd", None),  # a tombstone
    )
    with worker("archive", config, tmp_path) as only:
        wait_for(lambda: caught_up(config), "the end of the topics", only, every=0.5)
        assert only.stop() == 0
    folder = Path(config.archive.folder)
    kept = [(path.parent.name, row) for path in archive_files(folder, Topic.USER_EVENTS) for row in events_of(path)]
    days = {row.event_id: day for day, row in kept if row.user_id == "odd"}
    assert days == {"e1": utc_day(NOW), "e2": utc_day(NOW - 30 * DAY), "e3": IMPLAUSIBLE, "e4": IMPLAUSIBLE}
    assert {row for _, row in kept if row.user_id == "odd"} == set(odd)
    (letter,) = [read_dead_letter(dict(row.headers), row.value) for row in read_topic(broker, Topic.DEAD_LETTERS)]
    assert (letter.stage, letter.value) == ("archive", BROKEN)
    assert sum(proof.left_out.total for proof in proofs(config)) == 3
    verify_and_break(config)


def verify_and_break(config: Config) -> None:
    assert all(not row["faults"] for row in json.loads(command(config, "verify", "--json")))
    listed = json.loads(command(config, "list", "--topic", Topic.USER_EVENTS, "--json"))
    assert sum(row["rows"] for row in listed) == archived(config).total()
    archive_files(Path(config.archive.folder), Topic.USER_EVENTS)[0].unlink()
    assert "missing file" in command(config, "verify", expect=1)


def utc_day(at_ms: int) -> str:
    return time.strftime("date=%Y-%m-%d", time.gmtime(at_ms / 1000))


def events_of(path: Path) -> Iterator[Event]:
    table = read_archive_file(path, Topic.USER_EVENTS)
    assert min(table.column(ARRIVED).to_pylist()).timestamp() > NOW / 1000 - 3_600
    return records(table, Topic.USER_EVENTS)


def test_an_erased_reader_is_gone_from_the_files_and_does_not_come_back_by_a_late_event(
    config: Config, tmp_path: Path
) -> None:
    config, broker = rolling(config, 1_000, 0.3), config.kafka.bootstrap
    folder = Path(config.archive.folder)
    send(broker, *(outgoing(event(n, user, NOW - 1_000)) for n in range(20) for user in ("ann", "bob")))
    with worker("archive", config, tmp_path) as only:
        wait_for(lambda: find_in_archive(folder, "ann")[Topic.USER_EVENTS] == 20, "the rows", only, every=0.5)
        wish = Erasure(user_id="ann", erased_before=NOW, requested_at=NOW)
        send(broker, Outgoing(Topic.ERASURES, b"ann", ERASURES.encode(wish)))
        erase_from_archive(folder, "ann", NOW)
        assert find_in_archive(folder, "ann")[Topic.USER_EVENTS] == 0
        send(
            broker, *(outgoing(event(100 + n, "ann", NOW - n)) for n in range(5)), outgoing(event(200, "ann", NOW + 1))
        )
        wait_for(lambda: caught_up(config), "the end of the topic", only, every=0.5)
        assert only.stop() == 0
    assert find_in_archive(folder, "ann")[Topic.USER_EVENTS] == 1  # of after the erasure
    assert sum(proof.left_out.erased for proof in proofs(config)) == 5
    wish = Erasure(user_id="bob", erased_before=NOW, requested_at=NOW)  # while no worker runs
    send(broker, Outgoing(Topic.ERASURES, b"bob", ERASURES.encode(wish)))
    assert find_in_archive(folder, "bob")[Topic.USER_EVENTS] == 20
    with worker("archive", config, tmp_path) as again:
        wait_for(lambda: find_in_archive(folder, "bob")[Topic.USER_EVENTS] == 0, "the erasure", again, every=0.5)
        assert again.stop() == 0
    assert find_in_archive(folder, "ann")[Topic.USER_EVENTS] == 1
    assert faults(config) == []


def command(config: Config, *arguments: str, expect: int = 0) -> str:
    argv = [sys.executable, "-m", "keenstream.cli", "archive", *arguments]
    done = subprocess.run(
        argv, env={**os.environ, **environment_of(config)}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout


def test_a_replayed_day_changes_no_profile_and_is_not_archived_again(config: Config, tmp_path: Path) -> None:
    config, broker = rolling(config, 2_000, 0.5), config.kafka.bootstrap
    events = [msgspec.structs.replace(row, user_id=f"again-{row.user_id}") for row in history(2_000, 30, seed=6)]
    asyncio.run(send_events(broker, events))
    with worker("archive", config, tmp_path) as archive, worker("profiles", config, tmp_path) as profiles:
        expected = offline_fold(events, config)
        wait_for(lambda: expected.items() <= stored_profiles(broker).items(), "profiles", profiles, every=1.0)
        wait_for(lambda: caught_up(config), "the archive", archive, every=0.5)
        before, folded, rows = stored_profiles(broker), processed(profiles), archived(config)
        days = {utc_day(row.occurred_at)[5:] for row in events}
        span = ("--from", min(days), "--to", max(days), "--json")
        assert json.loads(command(config, "replay", *span, "--dry-run"))["sent"] == 0
        sent_again = json.loads(command(config, "replay", *span))["sent"]
        assert sent_again >= len(events)
        wait_for(lambda: processed(profiles) >= folded + sent_again, "the replay", profiles)
        wait_for(lambda: caught_up(config), "the archive", archive, every=0.5)
        assert stored_profiles(broker) == before
        assert archived(config) == rows
        assert sum(proof.left_out.replayed for proof in proofs(config)) == sent_again
        assert archive.stop() == profiles.stop() == 0


def processed(profiles: Worker) -> float:
    names = ("keenstream_events_folded_total", "keenstream_events_unchanged_total", "keenstream_events_dropped_total")
    return sum(profiles.metric(name) for name in names)


def test_an_archive_that_is_ahead_of_its_topic_is_refused(config: Config, tmp_path: Path) -> None:
    Ranges(Path(config.archive.folder) / Topic.USER_EVENTS, 0).commit_absent(10**9)
    with worker("archive", config, tmp_path) as refused:
        assert refused.process.wait(60) == 2
        assert "was made anew" in refused.log.read_text()
    assert "was made anew" in command(config, "verify", expect=1)


@pytest.mark.fault
def test_workers_killed_at_random_write_every_record_into_exactly_one_file(config: Config, tmp_path: Path) -> None:
    """Two workers at a time; one of them is killed, and another takes its place, while events keep coming."""
    rng = random.Random(int(os.environ.get("KEENSTREAM_TEST_SEED", "11")))
    config = rolling(config, 400, 0.2)
    with ExitStack() as stack:
        workers = [stack.enter_context(worker("archive", config, tmp_path))]
        with Traffic(config.kafka.bootstrap):
            for _ in range(KILLS):
                workers.append(stack.enter_context(worker("archive", config, tmp_path)))
                time.sleep(rng.uniform(0.2, 2.0))
                workers.pop(rng.randrange(len(workers))).kill()
        (last,) = workers
        wait_for(lambda: caught_up(config), "the end of the topic", last, every=0.5)
        assert faults(config) == []
        expected = sent(config, "traffic")
        assert expected.total() > 1_000
        assert archived(config, "traffic") == expected
        assert last.stop() == 0
