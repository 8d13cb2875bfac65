"""How Faust finds the transport."""

from pathlib import Path

import faust
from faust.transport import by_url
from faust.transport.drivers.aiokafka import server_list

from stream.transport import StateTable, Transport, create_app
from stream.transport.consumer import Consumer


def test_the_url_scheme_is_registered() -> None:
    assert by_url("batch://127.0.0.1:9092") is Transport


def test_any_faust_app_can_use_it_by_its_url() -> None:
    app = faust.App("any", broker="batch://a:1;b:2")
    assert isinstance(app.transport, Transport)
    assert app.transport.Consumer is Consumer
    assert server_list(app.transport.url, 9092) == ["a:1", "b:2"]


def test_an_app_knows_all_of_its_brokers(tmp_path: Path) -> None:
    app = create_app("app", "a:1, b:2", data_folder=tmp_path)
    assert server_list(app.transport.url, 9092) == ["a:1", "b:2"]
    assert server_list(app.producer_transport.url, 9092) == ["a:1", "b:2"]


def test_an_app_has_the_settings_that_lose_nothing(tmp_path: Path) -> None:
    conf = create_app("app", "a:1", data_folder=tmp_path).conf
    assert conf.consumer_auto_offset_reset == "earliest"
    assert conf.stream_wait_empty
    assert conf.producer_acks == -1
    assert not conf.web_enabled
    assert not conf.topic_allow_declare
    assert conf.Table is StateTable
