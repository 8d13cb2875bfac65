from pathlib import Path

import pytest

from offline.release.repository import TEMPLATES, add_version, assemble_repository, set_parameters
from schemas.errors import UsageError
from schemas.names import Model


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_repository_holds_templates_and_weights_and_nothing_else(tmp_path: Path, weights: Path) -> None:
    target = tmp_path / "models" / "repository"
    assemble_repository(target, {Model.STUDENT: weights, Model.EMBEDDER: weights})
    assert sorted(files(target)) == [
        "embedder/1/engines.py",
        "embedder/1/model.py",
        "embedder/1/weights/manifest.json",
        "embedder/config.pbtxt",
        "student/1/engines.py",
        "student/1/lists.py",
        "student/1/model.py",
        "student/1/weights/manifest.json",
        "student/config.pbtxt",
    ]
    assert [path.name for path in target.parent.iterdir()] == ["repository"]


def test_it_may_be_assembled_again(tmp_path: Path, weights: Path) -> None:
    target = tmp_path / "repository"
    assemble_repository(target, {Model.STUDENT: weights})
    once = files(target)
    assemble_repository(target, {Model.STUDENT: weights})
    assert files(target) == once


def test_a_new_version_leaves_the_old_one_for_rollback(tmp_path: Path, weights: Path) -> None:
    target = tmp_path / "repository"
    add_version(target, Model.STUDENT, weights, version=1)
    assert add_version(target, Model.STUDENT, weights, version=2) == target / "student" / "2"
    assert sorted(path.name for path in (target / "student").iterdir()) == ["1", "2", "config.pbtxt"]


def test_parameters_are_replaced_in_the_configuration(tmp_path: Path, weights: Path) -> None:
    target = tmp_path / "repository"
    assemble_repository(target, {Model.STUDENT: weights}, parameters={Model.STUDENT: {"precision": "f32"}})
    before = (TEMPLATES / "student" / "config.pbtxt").read_text().splitlines()
    after = (target / "student" / "config.pbtxt").read_text().splitlines()
    (changed,) = [line for old, line in zip(before, after, strict=True) if old != line]
    assert changed == 'parameters { key: "precision"         value { string_value: "f32" } }'


def test_an_unknown_parameter_or_model_is_named() -> None:
    with pytest.raises(UsageError, match="engin'"):
        set_parameters('parameters { key: "engine" value { string_value: "x" } }', {"engin": "y"})
    with pytest.raises(UsageError, match="teacher"):
        assemble_repository(Path("unused"), {"teacher": Path("unused")})
