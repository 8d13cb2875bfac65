"""What is written to a reader's partition of some topics from now on, without reading what is there already."""

from collections.abc import Sequence
from typing import Any, Self

import aiokafka
from aiokafka.errors import KafkaError

from schemas.errors import UsageError
from stream.kafka_access import Broker, aiokafka_options, failure, settings_of
from stream.topic_reader import partition_of


class Tail:
    """A consumer without a group, at the ends of the partitions that hold `key`."""

    def __init__(self, broker: Broker, topics: Sequence[str], key: bytes) -> None:
        self._broker, self._topics, self._key = broker, topics, key
        self._consumer: Any = None

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except (KafkaError, OSError) as error:
            await self._close()
            raise failure(self._broker, error) from error
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def records(self, timeout_seconds: float) -> list[Any]:
        """What came within the time, in each partition's order; [] when nothing did. Raises Unavailable."""
        try:
            found = await self._consumer.getmany(timeout_ms=int(timeout_seconds * 1000))
        except (KafkaError, OSError) as error:
            raise failure(self._broker, error) from error
        return [record for records in found.values() for record in records]

    async def _open(self) -> None:
        self._consumer = aiokafka.AIOKafkaConsumer(
            **aiokafka_options(self._broker), enable_auto_commit=False, auto_offset_reset="latest"
        )
        await self._consumer.start()
        there = await self._consumer.topics()
        if missing := [topic for topic in self._topics if topic not in there]:
            address = settings_of(self._broker).bootstrap
            raise UsageError(f"there is no topic {', '.join(missing)} at {address}: run `keenstream prepare`")
        # a client knows the partitions of a topic once it has asked for one of them
        await self._consumer.end_offsets([aiokafka.TopicPartition(topic, 0) for topic in self._topics])
        counts = {topic: len(self._consumer.partitions_for_topic(topic)) for topic in self._topics}
        partitions = [aiokafka.TopicPartition(t, partition_of(self._key, count)) for t, count in counts.items()]
        self._consumer.assign(partitions)
        for partition, end in (await self._consumer.end_offsets(partitions)).items():
            self._consumer.seek(partition, end)

    async def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()
