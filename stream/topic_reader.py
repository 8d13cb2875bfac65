"""Reading a topic as it is now, from the first record to the ends that were seen at the start (kafka-python)."""

from collections.abc import Iterator
from typing import Any

from aiokafka.partitioner import murmur2
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from schemas.errors import UsageError
from stream.kafka_access import Broker, addresses, check_credentials, failure, kafka_python_options


def read_topic(broker: Broker, topic: str, *, key: bytes | None = None, timeout_seconds: float = 10.0) -> Iterator[Any]:
    """kafka-python's ConsumerRecords of `topic`, partition by partition in offset order.

    With `key` only the partition that Kafka clients give to that key, all its records.

    Raises UsageError when there is no such topic and Unavailable when the broker does not answer in time.
    """
    consumer = _consumer(broker, timeout_seconds)
    try:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        if not partitions:
            raise UsageError(f"there is no topic {topic} at {addresses(broker)[0]}; `keenstream stack up` creates it")
        if key is not None:
            partitions = [partitions[partition_of(key, len(partitions))]]
        ends = consumer.end_offsets(partitions)
        for partition in partitions:
            yield from _read_partition(consumer, partition, ends[partition])
    except KafkaError as error:
        raise failure(broker, error) from error
    finally:
        consumer.close()


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that every Kafka client gives to a key by default."""
    return int(murmur2(key) & 0x7FFFFFFF) % partitions


def _read_partition(consumer: Any, partition: TopicPartition, end: int) -> Iterator[Any]:
    consumer.assign([partition])
    consumer.seek_to_beginning(partition)
    while consumer.position(partition) < end:
        for records in consumer.poll(timeout_ms=1_000).values():
            yield from (record for record in records if record.offset < end)


def _consumer(broker: Broker, timeout_seconds: float) -> Any:
    check_credentials(broker)
    try:
        return KafkaConsumer(
            **kafka_python_options(broker),
            enable_auto_commit=False,
            bootstrap_timeout_ms=int(timeout_seconds * 1000),
            request_timeout_ms=int(timeout_seconds * 1000),
        )
    except (KafkaError, OSError) as error:
        raise failure(broker, error) from error
