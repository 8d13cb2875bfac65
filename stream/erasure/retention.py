"""Until when Kafka's logs still hold what was removed or written: told by the brokers' settings, not by ours."""

from collections.abc import Iterable, Mapping
from contextlib import closing

import msgspec
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError

from stream.kafka_access import Broker, check_credentials, failure, kafka_python_options

FOR_EVER_MS = 2**62  # Kafka's "no limit" is 2**63 - 1


class LogKeeping(msgspec.Struct, frozen=True, kw_only=True):
    """How long a topic keeps what. Milliseconds; None = for ever."""

    compacts: bool
    deletes: bool
    compaction_lag_ms: int | None
    retention_ms: int | None
    segment_ms: int

    def replaced_gone_by(self, at_ms: int) -> int | None:
        """UTC ms by which the log has dropped what was replaced or removed at `at_ms`; None = no bound."""
        bounds = [self.written_gone_by(at_ms) if self.deletes else None]
        if self.compacts and self.compaction_lag_ms is not None:
            bounds.append(at_ms + self.compaction_lag_ms)
        return min((bound for bound in bounds if bound is not None), default=None)

    def written_gone_by(self, at_ms: int) -> int | None:
        """UTC ms by which a record of `at_ms` is gone by age. Kafka deletes whole segments, so by the newest in it."""
        return at_ms + self.segment_ms + self.retention_ms if self.deletes and self.retention_ms is not None else None


def log_keeping(broker: Broker, topics: Iterable[str], *, timeout_seconds: float = 10.0) -> dict[str, LogKeeping]:
    """Of those topics that exist. Raises Unavailable."""
    timeout_ms = int(timeout_seconds * 1000)
    check_credentials(broker)
    try:
        with closing(
            KafkaAdminClient(
                **kafka_python_options(broker), request_timeout_ms=timeout_ms, bootstrap_timeout_ms=timeout_ms
            )
        ) as admin:
            there = set(admin.list_topics()) & set(topics)
            resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(there)]
            described = admin.describe_configs(resources, config_filter="all") if resources else {}
    except (KafkaError, OSError) as error:
        raise failure(broker, error) from error
    return {
        name: _keeping({key: entry["value"] for key, entry in settings.items()})
        for by_name in described.values()
        for name, settings in by_name.items()
    }


def _keeping(settings: Mapping[str, str | None]) -> LogKeeping:
    policy = (settings.get("cleanup.policy") or "delete").split(",")
    return LogKeeping(
        compacts="compact" in policy,
        deletes="delete" in policy,
        compaction_lag_ms=_limit(settings.get("max.compaction.lag.ms")),
        retention_ms=_limit(settings.get("retention.ms")),
        segment_ms=_limit(settings.get("segment.ms")) or 0,
    )


def _limit(text: str | None) -> int | None:
    limit = int(text or -1)
    return None if limit < 0 or limit > FOR_EVER_MS else limit
