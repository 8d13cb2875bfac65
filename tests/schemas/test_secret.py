"""Secrets: hidden wherever settings are shown, passed on to child processes, read from files of their own."""

from pathlib import Path

import msgspec
import pytest

from schemas.config import Config, Kafka, environment_of, load_config
from schemas.errors import UsageError
from schemas.secret import Secret, secret_of

WORD = "hunter2"


def test_settings_do_not_show_a_secret() -> None:
    config = load_config(None, {"KEENSTREAM_KAFKA_SASL_PASSWORD": WORD, "KEENSTREAM_MILVUS_TOKEN": WORD})
    assert config.kafka.sasl_password.reveal() == WORD
    shown = [repr(config), str(config.kafka.sasl_password), f"{config.milvus.token}", f"{config.kafka!r}"]
    assert not any(WORD in text for text in shown)
    with pytest.raises((TypeError, NotImplementedError)):
        msgspec.json.encode(config)


def test_a_child_process_gets_it_by_its_environment() -> None:
    config = Config(kafka=Kafka(sasl_password=Secret(WORD)))
    environment = environment_of(config)
    assert environment["KEENSTREAM_KAFKA_SASL_PASSWORD"] == WORD
    assert load_config(None, environment) == config


def test_a_settings_file_may_not_hold_it(tmp_path: Path) -> None:
    path = tmp_path / "keenstream.toml"
    path.write_text(f'[kafka]\nsasl_password = "{WORD}"\n')
    with pytest.raises(UsageError, match="KEENSTREAM_KAFKA_SASL_PASSWORD") as raised:
        load_config(path, {})
    assert WORD not in str(raised.value)


def test_it_is_read_from_its_file_each_time(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(f"{WORD}\n")
    path.chmod(0o600)
    assert secret_of(Secret(), str(path), "kafka.sasl_password") == WORD
    path.write_text("changed")
    assert secret_of(Secret(), str(path), "kafka.sasl_password") == "changed"


def test_a_file_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(WORD)
    path.chmod(0o644)
    with pytest.raises(UsageError, match=f"chmod o= {path}") as raised:
        secret_of(Secret(), str(path), "kafka.sasl_password")
    assert WORD not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "file", "says"),
    [(Secret(WORD), "file", "both set"), (Secret(), "nowhere", "kafka.sasl_password_file: cannot read nowhere")],
)
def test_what_is_wrong_is_named(given: Secret, file: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        secret_of(given, file, "kafka.sasl_password")


def test_two_secrets_are_equal_by_their_text() -> None:
    assert Secret(WORD) == Secret(WORD) and hash(Secret(WORD)) == hash(Secret(WORD))
    assert Secret(WORD) != Secret() and not Secret()
