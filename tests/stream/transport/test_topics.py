"""Topics on a real broker: made once, and refused when they would lose state."""

import uuid

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from schemas.errors import Unavailable, UsageError
from stream.transport import TopicSpec, changelog, check_topics, create_topics


def specs(partitions: int = 3) -> list[TopicSpec]:
    name = uuid.uuid4().hex[:8]
    return [TopicSpec(name=f"events-{name}", partitions=partitions), changelog(f"app-{name}", "t", partitions)]


def test_the_changelog_has_the_name_that_faust_gives_it() -> None:
    spec = changelog("app", "profiles", 4)
    assert spec.name == "app-profiles-changelog"
    assert spec.settings()["cleanup.policy"] == "compact"


@pytest.mark.stack
def test_topics_are_made_once(kafka: str) -> None:
    wanted = specs()
    assert create_topics(kafka, wanted) == [spec.name for spec in wanted]
    assert create_topics(kafka, wanted) == []
    check_topics(kafka, wanted)


@pytest.mark.stack
def test_a_missing_topic_is_named(kafka: str) -> None:
    wanted = specs()
    create_topics(kafka, wanted[:1])
    with pytest.raises(UsageError, match=f"{wanted[1].name} does not exist: create it with 3 partitions"):
        check_topics(kafka, wanted)


@pytest.mark.stack
def test_wrong_partition_counts_are_refused(kafka: str) -> None:
    events, table = specs()
    create_topics(kafka, [events, changelog(table.name.removesuffix("-t-changelog"), "t", 2)])
    with pytest.raises(UsageError, match=f"{table.name} has 2 partitions where 3 are set"):
        check_topics(kafka, [events, table])


@pytest.mark.stack
@pytest.mark.parametrize("policy", ["delete", "compact,delete"])
def test_a_changelog_that_deletes_is_refused_with_the_command_that_mends_it(kafka: str, policy: str) -> None:
    table = specs()[1]
    create_topics(kafka, [TopicSpec(name=table.name, partitions=3, config={"cleanup.policy": policy})])
    with pytest.raises(UsageError, match=r"--add-config cleanup\.policy=compact"):
        check_topics(kafka, [table])


@pytest.mark.stack
def test_settings_reach_the_broker(kafka: str) -> None:
    spec = TopicSpec(name=uuid.uuid4().hex, partitions=1, compacted=True, config={"segment.ms": "12345"})
    create_topics(kafka, [spec])
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    try:
        [by_name] = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, spec.name)]).values()
    finally:
        admin.close()
    assert {key: found["value"] for key, found in by_name[spec.name].items()} == spec.settings()


def test_no_broker_says_what_to_do() -> None:
    with pytest.raises(Unavailable, match="start it with"):
        check_topics("127.0.0.1:1", specs(), timeout_seconds=0.3)
