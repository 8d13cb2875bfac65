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


EXPERIMENT = """
[[experiments]]
name = "path"
salt = "s1"
holdout = 0.1
arms = [{ name = "control", path = false }, { name = "treatment", student = "student-b", exploration = 0.05 }]
phases = [{ starts_at = 2026-11-01T00:00:00Z, weights = { control = 0.5, treatment = WEIGHT } }]
overrides = { editor = "treatment" }
"""


def experiment_file(tmp_path: Path, weight: str = "0.5") -> Path:
    path = tmp_path / "keenstream.toml"
    path.write_text(EXPERIMENT.replace("WEIGHT", weight))
    return path


def test_experiments_reach_a_child_process(tmp_path: Path) -> None:
    config = load_config(experiment_file(tmp_path), {})
    (experiment,) = config.experiments
    assert [(arm.name, arm.path, arm.student) for arm in experiment.arms] == [
        ("control", False, "student"),
        ("treatment", True, "student-b"),
    ]
    assert load_config(environment=environment_of(config)) == config


def test_weights_that_do_not_add_up_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"experiment path, phase 0: the weights add up to 1\.1"):
        load_config(experiment_file(tmp_path, "0.6"), {})


@pytest.mark.parametrize(
    ("text", "reason"),
    [("[{", "KEENSTREAM_EXPERIMENTS is not a JSON array"), ('[{"nam": "x"}]', "nam"), ('{"name": "x"}', "array")],
)
def test_experiments_in_the_environment_are_checked(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        load_config(environment={"KEENSTREAM_EXPERIMENTS": text})
