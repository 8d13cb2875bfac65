"""The archive worker: `keenstream worker archive`."""

import asyncio
import gc
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from logging import ERROR, getLogger
from pathlib import Path
from time import monotonic
from typing import Any

import pyarrow as pa
from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from schemas.archive import ARCHIVED
from schemas.codecs import open_codecs
from schemas.config import Config
from schemas.errors import RetryableError, Unavailable
from schemas.names import App, Topic
from stream.archive.archiver import Archiver, Key
from stream.archive.erased_readers import ErasedReaders
from stream.archive.erasing import ERASING
from stream.clock import now_ms
from stream.kafka_access import check_credentials, failure, kafka_python_options
from stream.producer import KafkaProducer, Outgoing
from stream.topics import topics
from stream.transport import check_topics

_log = getLogger(__name__)
POLL_MS = 500
POLL_RECORDS = 10_000
FETCH_BYTES = 4 * 1024 * 1024  # of one partition
ERASURES_SECONDS = 5.0  # how often new erasures are looked for when no range is written
REPEAT_SECONDS = 1.0  # when a part that is needed is away


def run(config: Config, folder: Path) -> int:
    """Archive to `folder` until SIGINT or SIGTERM; the exit code. Raises UsageError when the topics are not as they
    must be or the archive is ahead of them."""
    check_topics(config.kafka, topics(config, *ARCHIVED, Topic.ERASURES, Topic.DEAD_LETTERS))
    for chatty in ("net.selector", "coordinator.assignors"):  # each large response, each topic not known yet
        getLogger(f"kafka.{chatty}").setLevel(ERROR)
    # a chunk of records is many small objects that live for a while: looking through them took a third of the time
    gc.set_threshold(50_000, 20, 20)
    pa.array([])  # loads pandas, which takes long: before there are partitions that wait
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    codecs = open_codecs(config)
    (folder / ERASING).mkdir(parents=True, exist_ok=True)
    with _consumer(config, group_id=App.ARCHIVE) as consumer, _consumer(config) as erasures_consumer:
        erasures = ErasedReaders(
            erasures_consumer, config.kafka.partitions, folder / ERASING / "searched.json", codecs.erasures
        )
        archiver = Archiver(
            config.archive,
            folder,
            codecs,
            erasures,
            partial(send_letters, config),
            now_ms,
            {Topic.USER_EVENTS: int(config.profiles.future_skew_seconds * 1000)},
        )
        _Loop(consumer, archiver).run(stop)
    return 0


def send_letters(config: Config, letters: Sequence[Outgoing]) -> None:
    """Returns when the broker has them; raises Unavailable. A producer for each time, as dead letters are few."""

    async def send() -> None:
        async with KafkaProducer(config.kafka) as producer:
            await producer.send(letters)

    if letters:
        asyncio.run(send())


class _Assignment(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python is untyped here
    """Called by the client's own thread while the worker polls, so it only notes that the partitions have changed."""

    def __init__(self) -> None:
        self.changed = threading.Event()

    def on_partitions_revoked(self, revoked: object) -> None:
        self.changed.set()

    def on_partitions_assigned(self, assigned: object) -> None:
        self.changed.set()


class _Loop:
    """Polls, hands records to the archiver and commits what it has written.

    Records that a poll returns together with a change of partitions are not used: every partition is then read from
    where the archive ends, whatever the group has committed.
    """

    def __init__(self, consumer: Any, archiver: Archiver) -> None:
        self._consumer, self._archiver = consumer, archiver
        self._assignment = _Assignment()
        self._erasures_at = 0.0
        consumer.subscribe(list(ARCHIVED), listener=self._assignment)

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self._step()
            except RetryableError as error:
                _log.warning("put off: %s", error)
                self._consumer.pause(*self._consumer.assignment())
                stop.wait(REPEAT_SECONDS)
        try:
            if not self._assignment.changed.is_set():
                self._write(everything=True)
        except RetryableError as error:
            _log.warning("what was in hand is read again at the next start: %s", error)

    def _step(self) -> None:
        polled = self._poll()
        if self._assignment.changed.is_set():
            if not self._consumer.assignment():
                return  # between two assignments: what is in hand may still be ours after the next
            self._hold()
        else:
            for partition, records in polled.items():
                self._archiver.take(Key(*partition), records)
        self._write()
        if monotonic() - self._erasures_at > ERASURES_SECONDS:
            self._archiver.erase_new()
            self._erasures_at = monotonic()
        self._consumer.resume(*self._consumer.paused())

    def _poll(self) -> Mapping[TopicPartition, list[Any]]:
        try:
            polled: Mapping[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=POLL_MS)
            return polled
        except (NoOffsetForPartitionError, OffsetOutOfRangeError):  # nothing committed yet, or deleted by the broker
            self._assignment.changed.set()
            return {}
        except KafkaError as error:
            if not error.retriable:
                raise
            raise Unavailable(f"Kafka does not answer ({type(error).__name__})") from error

    def _hold(self) -> None:
        """Read each partition from where the archive ends; repeated until it has succeeded."""
        self._assignment.changed.clear()
        try:
            assigned = sorted(self._consumer.assignment())
            beginnings, ends = self._consumer.beginning_offsets(assigned), self._consumer.end_offsets(assigned)
            positions = self._archiver.hold({Key(*row): (beginnings[row], ends[row]) for row in assigned})
            for key, position in positions.items():
                self._consumer.seek(TopicPartition(*key), position)
        except (KafkaError, RetryableError, ValueError) as error:  # ValueError: revoked in the meantime
            self._assignment.changed.set()
            raise Unavailable(f"the partitions cannot be placed yet: {error}") from error
        _log.info("archiving %d partitions", len(positions))

    def _write(self, *, everything: bool = False) -> None:
        written: dict[TopicPartition, Any] = {}
        for key, position in self._archiver.write_due(everything=everything):
            partition = TopicPartition(*key)
            written[partition] = OffsetAndMetadata(position, "", -1)
            with suppress(ValueError):  # no longer ours
                if self._consumer.position(partition, timeout_ms=POLL_MS) != position:
                    self._consumer.seek(partition, position)
        if written:
            try:
                self._consumer.commit(written)
            except KafkaError as error:  # the files say how far the archive is; this only tells others
                _log.warning("offsets are not committed: %s", type(error).__name__)


@contextmanager
def _consumer(config: Config, group_id: str | None = None) -> Iterator[Any]:
    check_credentials(config.kafka)
    try:
        consumer = KafkaConsumer(
            **kafka_python_options(config.kafka),
            group_id=group_id,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            session_timeout_ms=int(config.kafka.session_timeout_seconds * 1000),
            heartbeat_interval_ms=int(min(3.0, config.kafka.session_timeout_seconds / 10) * 1000),
            max_poll_records=POLL_RECORDS,
            max_partition_fetch_bytes=FETCH_BYTES,
            metrics_enabled=False,
        )
    except (KafkaError, OSError) as error:
        raise failure(config.kafka, error) from error
    with closing(consumer):
        yield consumer
