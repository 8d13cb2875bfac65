"""The shipped student as whole weights in a Hugging Face folder: for `evaluate`, for training further, for vLLM."""

from pathlib import Path

import msgspec

from offline.release.folders import build_folder
from offline.release.manifest import Manifest, sha256_of, write_manifest
from offline.release.shipped import SHIPPED, ShippedManifest, merge_shipped, read_shipped
from offline.release.student import HF_RECIPE, Progress, build_base
from schemas.errors import UsageError


def export_shipped(
    hf_folder: Path, cache: Path, target: Path, progress: Progress, *, shipped: Path = SHIPPED
) -> Manifest:
    """What is `shipped`, merged into its base in `hf_folder` (built where it is missing), in a new folder."""
    trained = read_shipped(shipped)
    if trained is None:
        raise UsageError(f"no student is shipped in {shipped}: the base is in {hf_folder}")
    if target.exists():
        raise UsageError(f"{target} is there already: name a folder that is not")
    base = build_base(hf_folder, cache, progress)
    progress(f"merging the shipped student {trained.version} into {base.name}")
    manifest = Manifest(
        name=trained.name,
        version=trained.version,
        prompt_version=trained.prompt_version,
        source=f"{base.source}, sha256 {base.sha256}, adapter {trained.adapter_sha256}",
        engine="transformers",
        recipe=HF_RECIPE,
        sha256="",
    )
    build_folder(target, lambda folder: _write(trained, shipped, hf_folder, folder, manifest))
    return manifest


def _write(trained: ShippedManifest, shipped: Path, hf_folder: Path, folder: Path, manifest: Manifest) -> None:
    merge_shipped(trained, shipped, hf_folder, folder)
    write_manifest(folder, msgspec.structs.replace(manifest, sha256=sha256_of(folder / "model.safetensors")))
