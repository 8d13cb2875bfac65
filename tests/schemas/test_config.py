from pathlib import Path

import pytest

from schemas.config import Config, environment_of, load_config
from schemas.errors import UsageError


def test_defaults_need_no_file() -> None:
    assert load_config(environment={}) == Config()


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    path = tmp_path / "keenstream.toml"
    path.write_text('[kafka]\nbootstrap = "a:1"\npartitions = 8\n[profiles]\nlanguages = ["de"]\n')
    config = load_config(path, {"KEENSTREAM_KAFKA_BOOTSTRAP": "b:2", "KEENSTREAM_PROFILES_LANGUAGES": "en, fr"})
    assert (config.kafka.bootstrap, config.kafka.partitions) == ("b:2", 8)
    assert config.profiles.languages == ("en", "fr")


def test_a_child_process_gets_the_same_settings() -> None:
    config = load_config(environment={"KEENSTREAM_KAFKA_PARTITIONS": "7", "KEENSTREAM_PROFILES_LANGUAGES": "en,fr"})
    assert load_config(environment=environment_of(config)) == config


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[kafka]\npartitions = 'many'\n", "partitions"),
        ("[kafka]\nbootstraps = 'a:1'\n", "bootstraps"),
        ("[kafak]\n", "kafak"),
        ("[kafka\n", "not TOML"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, names: str) -> None:
    path = tmp_path / "keenstream.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=names):
        load_config(path, {})


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.toml"):
        load_config(tmp_path / "nowhere.toml", {})
