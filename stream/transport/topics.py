"""Topics that must exist, made by an admin step, and the check that refuses to start on wrong ones."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

import msgspec
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError, TopicAlreadyExistsError

from schemas.errors import UsageError
from stream.kafka_access import Broker, check_credentials, failure, kafka_python_options

# Small segments and an eager cleaner keep a restore short: a changelog holds many rows of the same key. The lag bounds
# how long the log still holds what was replaced or removed, also where little is written: an erasure counts on it.
COMPACTED: Mapping[str, str] = {
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.2",
    "segment.bytes": str(64 * 1024 * 1024),
    "max.compaction.lag.ms": str(24 * 3_600_000),
}


class TopicSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One topic as it must be. `co_partitioned` topics are keyed alike and share the partition count."""

    name: str
    partitions: int
    compacted: bool = False
    config: Mapping[str, str] = {}

    def settings(self) -> dict[str, str]:
        return {**(COMPACTED if self.compacted else {}), **self.config}


def changelog(app_id: str, table: str, partitions: int) -> TopicSpec:
    """The changelog of a state table, under the name that Faust gives it."""
    return TopicSpec(name=f"{app_id}-{table}-changelog", partitions=partitions, compacted=True)


def create_topics(
    broker: Broker, specs: Iterable[TopicSpec], *, replication_factor: int = 1, timeout_seconds: float = 30.0
) -> list[str]:
    """Create those that are missing and return their names. Existing ones stay as they are: `check_topics` judges."""
    with closing(_admin(broker, timeout_seconds)) as admin:
        there = set(admin.list_topics())
        missing = {spec.name: spec for spec in specs if spec.name not in there}
        return [spec.name for spec in missing.values() if _create(admin, spec, replication_factor, timeout_seconds)]


def _create(admin: Any, spec: TopicSpec, replication_factor: int, timeout_seconds: float) -> bool:
    options = {
        "num_partitions": spec.partitions,
        "replication_factor": replication_factor,
        "configs": spec.settings(),
    }
    try:
        admin.create_topics({spec.name: options}, timeout_ms=int(timeout_seconds * 1000), wait_for_metadata=True)
    except TopicAlreadyExistsError:
        return False  # made by another process in the meantime
    except KafkaError as error:
        raise UsageError(f"cannot create topic {spec.name}: {error}") from error
    return True


def check_topics(broker: Broker, specs: Sequence[TopicSpec], *, timeout_seconds: float = 30.0) -> None:
    """Raise UsageError, with what to do, unless all topics exist, with these counts, and changelogs only compact."""
    with closing(_admin(broker, timeout_seconds)) as admin:
        found = _partition_counts(admin, [spec.name for spec in specs])
        policies = _policies(admin, [spec.name for spec in specs if spec.compacted and spec.name in found])
    faults = [fault for spec in specs for fault in _faults(spec, found, policies)]
    if faults:
        raise UsageError("; ".join(faults))


def _faults(spec: TopicSpec, found: Mapping[str, int], policies: Mapping[str, str]) -> list[str]:
    if spec.name not in found:
        return [f"topic {spec.name} does not exist: create it with {spec.partitions} partitions"]
    faults = []
    if found[spec.name] != spec.partitions:
        faults.append(
            f"topic {spec.name} has {found[spec.name]} partitions where {spec.partitions} are set: set the same count "
            "for all keyed topics, or delete the topic and create it anew (keys move when a count changes)"
        )
    if spec.compacted and policies[spec.name] != "compact":
        faults.append(
            f"topic {spec.name} has cleanup.policy={policies[spec.name]}, which deletes state: run kafka-configs.sh "
            f"--alter --entity-type topics --entity-name {spec.name} --add-config cleanup.policy=compact"
        )
    return faults


def _partition_counts(admin: Any, names: Sequence[str]) -> dict[str, int]:
    there = set(admin.list_topics())  # asking for a topic that is missing may create it on some brokers
    described = admin.describe_topics([name for name in names if name in there])
    return {topic["name"]: len(topic["partitions"]) for topic in described}


def _policies(admin: Any, names: Sequence[str]) -> dict[str, str]:
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    described = admin.describe_configs(resources, config_filter="all") if resources else {}
    return {name: keys["cleanup.policy"]["value"] for by_name in described.values() for name, keys in by_name.items()}


def _admin(broker: Broker, timeout_seconds: float) -> Any:
    timeout_ms = int(timeout_seconds * 1000)
    check_credentials(broker)
    try:
        return KafkaAdminClient(
            **kafka_python_options(broker), request_timeout_ms=timeout_ms, bootstrap_timeout_ms=timeout_ms
        )
    except (KafkaError, OSError) as error:
        raise failure(broker, error) from error
