import shutil
import socket
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic
from kafka.errors import KafkaTimeoutError

from keenstream.stack import kafka
from keenstream.stack.kafka import ensure_jars, kafka_server
from keenstream.stack.ports import free_port
from tests.keenstream.stack.programs import gone

pytestmark = pytest.mark.stack


def create(bootstrap: str, topic: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic(topic, 4, 1)])
    admin.close()


def test_records_outlive_a_restart_on_another_port(tmp_path: Path) -> None:
    with kafka_server(tmp_path) as server:
        create(server.bootstrap, "kept")
        with KafkaProducer(bootstrap_servers=server.bootstrap) as producer:
            producer.send("kept", b"value").get(60)
    assert gone(server.pid)
    with kafka_server(tmp_path) as again:
        assert again.bootstrap != server.bootstrap
        consumer = KafkaConsumer("kept", bootstrap_servers=again.bootstrap, auto_offset_reset="earliest")
        assert next(iter(consumer)).value == b"value"
        consumer.close()


def test_a_format_that_was_cut_short_is_done_again(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.properties").write_text("version=1\n")
    with kafka_server(tmp_path) as server:
        create(server.bootstrap, "fresh")


def test_topics_are_not_created_by_mentioning_them(kafka: str) -> None:
    with (
        KafkaProducer(bootstrap_servers=kafka, max_block_ms=1_500) as producer,
        pytest.raises(KafkaTimeoutError),
    ):
        producer.send("never-created", b"x").get(5)
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    assert "never-created" not in admin.list_topics()
    admin.close()


def test_jars_are_fetched_once_and_whole(tmp_path: Path) -> None:
    jars = ensure_jars(tmp_path / "jars")
    assert any(jar.name.startswith("kafka_2.13-") for jar in jars.glob("*.jar"))
    shutil.rmtree(jars)
    jars.mkdir()  # what is there is trusted: it appeared by one rename
    assert list(ensure_jars(tmp_path / "jars").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["jars"]


def test_a_port_that_was_taken_in_the_meantime_is_chosen_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        chosen = iter([holder.getsockname()[1]])
        monkeypatch.setattr(kafka, "free_port", lambda taken=(): next(chosen, None) or free_port(taken))
        with kafka_server(tmp_path) as server:
            assert not server.bootstrap.endswith(f":{holder.getsockname()[1]}")
