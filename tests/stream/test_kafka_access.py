"""Kafka with SASL_SSL: every client works with the right settings, and is told what is wrong with others."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench._worker import worker
from schemas.codec import EVENTS
from schemas.config import Config, Kafka, Profiles
from schemas.errors import Unavailable, UsageError
from schemas.names import App, Topic
from schemas.secret import Secret
from stream.api.views import ViewFollower
from stream.consumer_lag import consumer_lag
from stream.kafka_access import aiokafka_options, faust_credentials
from stream.producer import KafkaProducer, Outgoing
from stream.topic_reader import read_topic
from stream.topics import all_topics
from stream.transport import check_topics, create_topics
from tests.integration.histories import history, offline_fold, send_events, stored_profiles
from tests.integration.processes import wait_for
from tests.stream.secured_kafka import PASSWORD, SecuredKafka, secured_kafka

MESSAGE = Outgoing("access-test", b"key", b"value")


def changed(kafka: Kafka, **fields: Any) -> Kafka:
    return msgspec.structs.replace(kafka, **fields)


class TestOptions:
    def test_an_address_alone_asks_for_nothing(self) -> None:
        assert aiokafka_options("a:1, b:2") == {"bootstrap_servers": ["a:1", "b:2"], "security_protocol": "PLAINTEXT"}
        assert faust_credentials("a:1") is None

    def test_certificates_and_names_are_always_checked(self) -> None:
        context = aiokafka_options(Kafka(security_protocol="SSL"))["ssl_context"]
        assert context.check_hostname
        assert context.verify_mode.name == "CERT_REQUIRED"

    def test_faust_gets_the_same(self) -> None:
        kafka = Kafka(security_protocol="SASL_SSL", sasl_username="ann", sasl_password=Secret("s3cret"))
        found = faust_credentials(kafka)
        assert (found.username, found.password, found.mechanism.value) == ("ann", "s3cret", "SCRAM-SHA-512")
        assert found.ssl_context.check_hostname
        assert "s3cret" not in repr(found)

    @pytest.mark.parametrize(
        ("kafka", "says"),
        [
            (Kafka(security_protocol="SASL_SSL"), "kafka.sasl_username"),
            (Kafka(security_protocol="SASL_SSL", sasl_username="ann"), "KEENSTREAM_KAFKA_SASL_PASSWORD"),
            (Kafka(sasl_username="ann"), "security_protocol is PLAINTEXT"),
            (Kafka(security_protocol="SSL", ssl_ca_file="nowhere.pem"), "nowhere.pem"),
            (Kafka(security_protocol="SSL", ssl_ca_file=__file__), "PEM"),
            (Kafka(security_protocol="SSL", ssl_key_file="k.pem"), "together"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, kafka: Kafka, says: str) -> None:
        with pytest.raises(UsageError, match=says):
            aiokafka_options(kafka)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    with secured_kafka(tmp_path_factory.mktemp("secured")) as found:
        create_topics(found.sasl, all_topics(Config(kafka=found.sasl)))
        yield found


@pytest.mark.stack
async def test_a_worker_folds_over_sasl_and_tls(broker: SecuredKafka, tmp_path: Path) -> None:
    """Producer, topics, reader, lag, and the Faust app with its consumer, producer and table."""
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    password.chmod(0o600)
    kafka = changed(broker.sasl, sasl_password=Secret(), sasl_password_file=str(password))
    config = Config(kafka=kafka, profiles=Profiles(flush_seconds=0.1))
    events = history(300, 10, seed=3)
    check_topics(kafka, all_topics(config))
    await send_events(kafka, events)
    with worker("profiles", config, tmp_path) as folding:
        wait_for(lambda: stored_profiles(kafka) == offline_fold(events, config), "profiles", folding, every=1.0)
        lag = {App.PROFILES: Topic.USER_EVENTS}
        wait_for(lambda: consumer_lag(kafka, lag, kafka.partitions) == {App.PROFILES: 0}, "commits", folding)
        assert folding.stop() == 0
        assert PASSWORD not in folding.log.read_text()


@pytest.mark.stack
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
async def test_other_mechanisms_work(broker: SecuredKafka, mechanism: str) -> None:
    await exchange(changed(broker.sasl, sasl_mechanism=mechanism))


@pytest.mark.stack
async def test_a_certificate_of_the_client_works(broker: SecuredKafka) -> None:
    await exchange(broker.mutual)


async def exchange(kafka: Kafka) -> None:
    value = EVENTS.encode(history(1, 1, seed=time.time_ns())[0])
    async with KafkaProducer(kafka) as producer:
        await producer.send([Outgoing(Topic.DEAD_LETTERS, b"key", value)])
    assert value in [record.value for record in read_topic(kafka, Topic.DEAD_LETTERS)]


WRONG = {
    "password": ("refuses the user 'keenstream'", "password"),
    "user": ("refuses the user 'nobody'", "kafka.sasl_username"),
    "authority": ("no TLS with Kafka", "kafka.ssl_ca_file"),
    "host": ("no TLS with Kafka", "names this host"),
}


def wrong(broker: SecuredKafka, what: str) -> Kafka:
    fields: dict[str, dict[str, Any]] = {
        "password": {"sasl_password": Secret("wr0ng-passw0rd")},
        "user": {"sasl_username": "nobody"},
        "authority": {"ssl_ca_file": broker.other_ca},
        "host": {"bootstrap": broker.sasl.bootstrap.replace("localhost", "127.0.0.1")},
    }
    return changed(broker.sasl, **fields[what])


@pytest.mark.stack
@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_at_once_with_what_to_set(broker: SecuredKafka, what: str) -> None:
    """kafka-python alone would try until its timeout and then say only that it could not connect."""
    kafka = wrong(broker, what)
    asked: list[Callable[[], object]] = [
        lambda: create_topics(kafka, all_topics(Config())),
        lambda: check_topics(kafka, all_topics(Config())),
        lambda: list(read_topic(kafka, Topic.DEAD_LETTERS)),
        lambda: consumer_lag(kafka, {App.PROFILES: Topic.USER_EVENTS}, 4),
    ]
    for ask in asked:
        with pytest.raises(UsageError) as raised:
            ask()
        assert all(text in str(raised.value) for text in WRONG[what])
        assert "wr0ng" not in str(raised.value)


@pytest.mark.stack
@pytest.mark.parametrize("what", WRONG)
async def test_a_running_client_says_it_and_goes_on_trying(broker: SecuredKafka, what: str) -> None:
    """An API or a worker must not end when a password is changed at the broker before it is changed here."""
    producer = KafkaProducer(wrong(broker, what), timeout_seconds=10)
    follower = ViewFollower(wrong(broker, what), views=None)  # type: ignore[arg-type]  # it never gets so far
    for asked in (producer.send([MESSAGE]), producer.__aenter__(), follower.check()):
        with pytest.raises(Unavailable) as raised:
            await asked
        assert all(text in str(raised.value) for text in WRONG[what])
    await producer.stop()


@pytest.mark.stack
def test_a_worker_with_a_wrong_password_ends_as_wrong_usage(broker: SecuredKafka, tmp_path: Path) -> None:
    with worker("profiles", Config(kafka=wrong(broker, "password")), tmp_path) as refused:
        assert refused.process.wait(60) == 2
        assert "refuses the user 'keenstream'" in refused.log.read_text()
        assert "wr0ng" not in refused.log.read_text()
