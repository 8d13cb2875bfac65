"""The cleaner that the repository ships, and its conversion for the serving engine.

triton_models/cleaner/trained/manifest.json       what it is, from which labels and commit, and its scores
                              model.safetensors   float16, with config.json and the tokenizer
"""

from pathlib import Path
from typing import Any

import msgspec

from offline.release.folders import build_folder
from offline.release.manifest import FILE_NAME, Manifest, read_manifest, sha256_of, write_manifest
from offline.release.repository import TEMPLATES
from offline.release.student import Progress
from schemas.errors import UsageError
from schemas.names import Model

SHIPPED = TEMPLATES / Model.CLEANER / "trained"
NAME = "keenstream-cleaner"
WEIGHTS = "model.safetensors"
RECIPE = "sequence-classifier-1"  # raise it when cleaner_ir.py builds another graph from the same weights


class ShippedCleaner(msgspec.Struct, frozen=True, kw_only=True):
    """Which weights these are, and where they come from."""

    version: str
    weights_sha256: str
    base: str
    steps: int
    settings: dict[str, Any]
    data_sha256: str  # of the labels
    commit: str
    commands: tuple[str, ...] = ()  # that make it again
    scores: dict[str, float] = {}  # on held-out readers, beside the rules alone


def build_cleaner(served: Path, progress: Progress, shipped: Path = SHIPPED) -> Manifest | None:
    """Convert what is shipped; skipped when `served` already holds just that. None where nothing is shipped."""
    found = read_shipped(shipped)
    if found is None:
        return None
    return convert(shipped, served, version=found.version, source=f"sha256 {found.weights_sha256}", progress=progress)


def read_shipped(folder: Path) -> ShippedCleaner | None:
    """None where there is none; UsageError for files that are not whole."""
    try:
        manifest = msgspec.json.decode((folder / FILE_NAME).read_bytes(), type=ShippedCleaner)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise UsageError(f"{folder / FILE_NAME} does not say what is shipped ({error}): fetch it again") from error
    weights = folder / WEIGHTS
    if not weights.exists() or sha256_of(weights) != manifest.weights_sha256:
        raise UsageError(f"{weights} is missing or not what {FILE_NAME} names: fetch it again (git checkout {folder})")
    return manifest


def convert(source_folder: Path, served: Path, *, version: str, source: str, progress: Progress) -> Manifest:
    """The classifier in `source_folder` as the engine loads it; skipped when `served` already holds just that."""
    wanted = Manifest(
        name=NAME, version=version, prompt_version="", source=source, engine="openvino", recipe=RECIPE, sha256=""
    )
    built = read_manifest(served)
    if built and built.same_recipe(wanted):
        return built
    progress(f"converting the cleaner {version} for OpenVINO")
    build_folder(served, lambda folder: _write_served(source_folder, folder, wanted))
    return read_manifest(served) or wanted


def _write_served(source_folder: Path, folder: Path, wanted: Manifest) -> None:
    # torch loads when something is converted
    from offline.release.cleaner_ir import GRAPH, convert_classifier
    from offline.training.labels import VERDICTS
    from offline.training.sequence_classifier import LONGEST_TOKENS, load_classifier

    base = load_classifier(str(source_folder))
    convert_classifier(base.model, base.tokenizer, folder, longest_tokens=LONGEST_TOKENS, drop=VERDICTS.index("drop"))
    digest = sha256_of(folder / GRAPH.replace(".xml", ".bin"))
    write_manifest(folder, msgspec.structs.replace(wanted, sha256=digest))
