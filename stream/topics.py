"""The topics as they must be: one place for partition counts and policies."""

from schemas.config import Config
from schemas.names import MATCH_TABLE, PROFILE_TABLE, App, Topic
from stream.transport import COMPACTED, TopicSpec, changelog

DAY_MS = 86_400_000


def all_topics(config: Config) -> list[TopicSpec]:
    """Every topic of the system. Keyed topics and the changelog share one partition count."""
    count = config.kafka.partitions
    day, week = {"retention.ms": str(DAY_MS)}, {"retention.ms": str(7 * DAY_MS)}
    letters = {
        **COMPACTED,
        "cleanup.policy": "compact,delete",  # a tombstone removes one letter, time removes all
        "retention.ms": str(30 * DAY_MS),
        # the largest record that a broker takes by default must still fit with its reason and origin
        "max.message.bytes": str(2 * 1024 * 1024),
    }
    return [
        TopicSpec(name=Topic.USER_EVENTS, partitions=count, config=week),
        changelog(App.PROFILES, PROFILE_TABLE, count),
        TopicSpec(name=Topic.QUERY_REQUESTS, partitions=count, compacted=True),
        TopicSpec(name=Topic.QUERY_LISTS, partitions=count, compacted=True),
        TopicSpec(name=Topic.ARTICLES, partitions=count, config=week),
        TopicSpec(name=Topic.EXPOSURES, partitions=count, config=week),
        TopicSpec(name=Topic.OUTCOMES, partitions=count, config=week),
        TopicSpec(name=Topic.MATCH_CANDIDATES, partitions=count, config=day),
        changelog(App.MATCHES, MATCH_TABLE, count),
        TopicSpec(name=Topic.FRESH_MATCHES, partitions=count, config=day),
        TopicSpec(name=Topic.ERASURES, partitions=count, compacted=True),
        TopicSpec(name=Topic.DEAD_LETTERS, partitions=count, config=letters),
    ]


def topics(config: Config, *names: str) -> list[TopicSpec]:
    """Those of `names`."""
    return [spec for spec in all_topics(config) if spec.name in names]
