"""Reading a topic as it is now, from the first record to the ends that were seen at the start (kafka-python)."""

from collections.abc import Iterator
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from schemas.errors import Unavailable, UsageError


def read_topic(bootstrap: str, topic: str, *, timeout_seconds: float = 10.0) -> Iterator[Any]:
    """kafka-python's ConsumerRecords of `topic`, partition by partition in offset order.

    Raises UsageError when there is no such topic and Unavailable when the broker does not answer in time.
    """
    consumer = _consumer(bootstrap, timeout_seconds)
    try:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        if not partitions:
            raise UsageError(f"there is no topic {topic} at {bootstrap}; `keenstream stack up` creates it")
        ends = consumer.end_offsets(partitions)
        for partition in partitions:
            yield from _read_partition(consumer, partition, ends[partition])
    except KafkaError as error:
        raise _away(bootstrap, error) from error
    finally:
        consumer.close()


def _read_partition(consumer: Any, partition: TopicPartition, end: int) -> Iterator[Any]:
    consumer.assign([partition])
    consumer.seek_to_beginning(partition)
    while consumer.position(partition) < end:
        for records in consumer.poll(timeout_ms=1_000).values():
            yield from (record for record in records if record.offset < end)


def _consumer(bootstrap: str, timeout_seconds: float) -> Any:
    try:
        return KafkaConsumer(
            bootstrap_servers=bootstrap.split(","),
            enable_auto_commit=False,
            bootstrap_timeout_ms=int(timeout_seconds * 1000),
            request_timeout_ms=int(timeout_seconds * 1000),
        )
    except (KafkaError, OSError) as error:
        raise _away(bootstrap, error) from error


def _away(bootstrap: str, error: Exception) -> Unavailable:
    return Unavailable(
        f"Kafka at {bootstrap} does not answer ({type(error).__name__}): start it with `keenstream stack up`, "
        "or set KEENSTREAM_KAFKA_BOOTSTRAP"
    )
