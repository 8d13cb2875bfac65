"""The real small models as they are built for `make demo`."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from keenstream.stack.folders import state_folder
from offline.release import smollm2
from offline.release.manifest import read_manifest
from offline.release.models import ModelPaths, build_models, build_untrained
from offline.release.shipped import SHIPPED, read_shipped
from schemas.prompt import EXAMPLES


@pytest.fixture(scope="module")
def paths() -> ModelPaths:
    return build_models(state_folder(), lambda step: None)


def test_a_second_build_has_nothing_to_do(paths: ModelPaths) -> None:
    built = (paths.student / "openvino_model.bin").stat()
    steps: list[str] = []
    assert build_models(state_folder(), steps.append) == paths
    assert steps == ["putting the model repository together"]
    assert (paths.student / "openvino_model.bin").stat().st_ino == built.st_ino


def test_the_manifest_names_weights_source_and_prompt(paths: ModelPaths) -> None:
    manifest = read_manifest(paths.student)
    assert manifest is not None
    trained = read_shipped(SHIPPED)
    base = smollm2.MODEL_NAME, smollm2.WHEEL_VERSION, EXAMPLES
    wanted = (trained.name, trained.version, trained.prompt_version) if trained else base
    assert (manifest.name, manifest.version, manifest.prompt_version) == wanted
    assert manifest.source.startswith(f"{smollm2.WHEEL}=={smollm2.WHEEL_VERSION}, sha256 ")


def test_the_base_is_built_beside_what_is_served(paths: ModelPaths) -> None:
    """A demo on given articles takes it, and the next one without them finds the shipped student as it was."""
    served = read_manifest(paths.student)
    untrained = build_untrained(state_folder(), lambda step: None)
    manifest = read_manifest(untrained.student)
    assert manifest is not None
    assert (manifest.name, manifest.prompt_version) == (smollm2.MODEL_NAME, EXAMPLES)
    assert untrained.repository != paths.repository
    assert read_manifest(paths.student) == served


def test_the_wrong_end_token_of_the_wheel_is_mended(paths: ModelPaths) -> None:
    tokenizer = AutoTokenizer.from_pretrained(paths.student_hf)
    assert tokenizer.eos_token == tokenizer.pad_token == smollm2.END_TOKEN
    generation = json.loads((paths.student_hf / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokenizer.eos_token_id


def test_a_wheel_in_the_cache_is_not_fetched_again(tmp_path: Path) -> None:
    folder = tmp_path / f"{smollm2.PACKAGE}-{smollm2.WHEEL_VERSION}" / smollm2.PACKAGE
    folder.mkdir(parents=True)
    (folder / "small.gguf").touch()
    assert smollm2.find_gguf(tmp_path) == folder / "small.gguf"
    assert [path.name for path in folder.iterdir()] == ["small.gguf"]
