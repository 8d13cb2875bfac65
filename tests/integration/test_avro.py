"""JSON and Avro on one topic of a real broker, with a schema registry that comes and goes."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path

import fastavro
import msgspec
import pytest

from bench._worker import worker
from keenstream.commands.schemas import register_all
from keenstream.stack.kafka import kafka_server
from schemas.avro.wire import header
from schemas.codec import EVENTS
from schemas.codecs import Codecs, open_codecs
from schemas.config import Config, Kafka, Profiles, Registry
from schemas.event import Event
from schemas.names import Topic
from stream.dead_letters import read_dead_letter
from stream.producer import KafkaProducer, Outgoing
from stream.topic_reader import read_topic
from stream.topics import all_topics
from stream.transport import create_topics
from tests.integration.histories import history, offline_fold, stored_profiles
from tests.integration.processes import wait_for
from tests.schemas.local_registry import LocalRegistry, local_registry

pytestmark = [pytest.mark.stack]
ACME = {  # a producer that was there before us: other names of types, another order, a field that we do not know
    "type": "record",
    "name": "com.acme.Activity",
    "fields": [
        {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "device", "type": "string"},
        {"name": "url", "type": ["string", "null"]},
        {"name": "kind", "type": "string"},
        {"name": "text", "type": "string"},
        {"name": "user_id", "type": "string"},
        {"name": "event_id", "type": "string"},
    ],
}


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker of its own, so that the names of topics and groups are the real ones."""
    with kafka_server(tmp_path_factory.mktemp("kafka")) as server:
        create_topics(server.bootstrap, all_topics(Config()))
        yield server.bootstrap


@pytest.fixture(scope="module")
def local() -> Iterator[LocalRegistry]:
    with local_registry() as started:
        yield started


def settings(bootstrap: str, registry: Registry) -> Config:
    return Config(
        kafka=Kafka(bootstrap=bootstrap, session_timeout_seconds=6.0),
        profiles=Profiles(flush_records=2_000, flush_seconds=0.2),
        registry=registry,
    )


def send(bootstrap: str, rows: Sequence[tuple[str, bytes]]) -> None:
    async def publish() -> None:
        async with KafkaProducer(bootstrap) as producer:
            for first in range(0, len(rows), 1_000):
                chunk = rows[first : first + 1_000]
                await producer.send([Outgoing(Topic.USER_EVENTS, user.encode(), value) for user, value in chunk])

    asyncio.run(publish())


def as_acme(schema_id: int) -> Callable[[Event], bytes]:
    parsed = fastavro.parse_schema({**ACME})

    def encode(event: Event) -> bytes:
        stream = BytesIO()
        fastavro.schemaless_writer(stream, parsed, {**msgspec.structs.asdict(event), "device": "phone"})
        return header(schema_id) + stream.getvalue()

    return encode


def newest_requests(bootstrap: str, codecs: Codecs) -> dict[str, bytes]:
    rows = {row.key.decode(): row.value for row in read_topic(bootstrap, Topic.QUERY_REQUESTS)}
    assert rows and all(value[0] == 0 for value in rows.values()), "requests are written as Avro"
    return {user: codecs.requests.decode(value).profile_fingerprint.encode() for user, value in rows.items()}


def test_a_migration_with_an_outage_gives_the_profiles_of_an_offline_fold(
    bootstrap: str, local: LocalRegistry, tmp_path: Path
) -> None:
    config = settings(bootstrap, Registry(url=local.url, format="avro"))
    register_all(config)
    codecs = open_codecs(config, (Topic.USER_EVENTS, Topic.QUERY_REQUESTS))
    encoders = [EVENTS.encode, codecs.events.encode, as_acme(local.add("acme-value", json.dumps(ACME)))]
    events = history(6_000, 60, seed=3)
    rows = [(event.user_id, encoders[number % 3](event)) for number, event in enumerate(events)]
    unknown = header(4711) + b"abc"
    send(bootstrap, [*rows[:3_000], ("reader", unknown), *rows[3_000:]])
    local.fault = 500
    with worker("profiles", config, tmp_path) as only:
        wait_for(lambda: only.metric("keenstream_retries_total", stage="profiles") > 0, "a retry", only)
        assert only.metric("keenstream_dead_letters_total") == 0
        local.fault = None
        expected = offline_fold(events, config)
        wait_for(lambda: stored_profiles(bootstrap) == expected, "profiles", only, every=1.0)
        wait_for(lambda: only.metric("keenstream_dead_letters_total") == 1, "the dead letter", only)
        assert only.stop() == 0
    (letter,) = [read_dead_letter(dict(row.headers), row.value) for row in read_topic(bootstrap, Topic.DEAD_LETTERS)]
    assert letter.value == unknown
    assert letter.reason == "the schema registry knows no schema 4711"
    assert newest_requests(bootstrap, codecs).keys() <= expected.keys()


def test_a_worker_starts_by_the_packaged_schemas_while_the_registry_is_away(bootstrap: str, tmp_path: Path) -> None:
    away = Registry(url="http://127.0.0.1:9", format="avro", timeout_seconds=0.5, ids=("Event/1=7", "QueryRequest/1=8"))
    config = settings(bootstrap, away)
    codecs = open_codecs(config, (Topic.USER_EVENTS, Topic.QUERY_REQUESTS))
    events = [msgspec.structs.replace(event, user_id=f"away-{event.user_id}") for event in history(1_000, 9, seed=4)]
    with worker("profiles", config, tmp_path) as only:
        send(bootstrap, [(event.user_id, codecs.events.encode(event)) for event in events])
        expected = offline_fold(events, config)
        wait_for(lambda: expected.items() <= stored_profiles(bootstrap).items(), "profiles", only, every=1.0)
        assert only.stop() == 0
