"""Consumer lag by group, as the broker tells it: what Faust's own monitor says of commits cannot be trusted (#316)."""

from collections.abc import Mapping, Sequence
from contextlib import closing

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError

from stream.kafka_access import Broker, check_credentials, failure, kafka_python_options


def consumer_lag(broker: Broker, topics: Mapping[str, str], partitions: int) -> dict[str, int]:
    """Records not yet committed, by group, for `topics` (group to topic). Raises Unavailable without a broker."""
    check_credentials(broker)
    try:
        with closing(KafkaAdminClient(**kafka_python_options(broker), request_timeout_ms=5_000)) as admin:
            wanted = {group: [TopicPartition(topic, p) for p in range(partitions)] for group, topic in topics.items()}
            ends = _ends(admin, {row for rows in wanted.values() for row in rows})
            committed = admin.list_group_offsets(wanted)
    except (KafkaError, OSError) as error:
        raise failure(broker, error) from error
    return {group: _behind(rows, ends, committed.get(group, {})) for group, rows in wanted.items()}


def committed_offsets(broker: Broker, groups: Sequence[str], topic: str, partition: int) -> dict[str, int]:
    """How far each group has committed one partition; 0 when it has not. Raises Unavailable without a broker."""
    row = TopicPartition(topic, partition)
    check_credentials(broker)
    try:
        with closing(KafkaAdminClient(**kafka_python_options(broker), request_timeout_ms=5_000)) as admin:
            committed = admin.list_group_offsets({group: [row] for group in groups})
    except (KafkaError, OSError) as error:
        raise failure(broker, error) from error
    return {group: max(0, getattr(committed.get(group, {}).get(row), "offset", 0)) for group in groups}


def _ends(admin: KafkaAdminClient, partitions: set[TopicPartition]) -> dict[TopicPartition, int]:
    found = admin.list_partition_offsets({row: OffsetSpec.LATEST for row in partitions})
    return {row: info.offset for row, info in found.items()}


def _behind(
    rows: Sequence[TopicPartition], ends: Mapping[TopicPartition, int], committed: Mapping[TopicPartition, object]
) -> int:
    return sum(max(0, ends[row] - max(0, getattr(committed.get(row), "offset", 0))) for row in rows)
