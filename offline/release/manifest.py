"""What a folder of served weights is: written beside them, read by the served model and by `keenstream models list`."""

import hashlib
from pathlib import Path

import msgspec

from schemas.errors import UsageError
from schemas.prompt import BARE

FILE_NAME = "manifest.json"
CHUNK_BYTES = 1 << 20


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One set of weights. `recipe` changes whenever the same source would be converted into something else."""

    name: str
    version: str
    prompt_version: str  # the rendering that these weights were made for; "" where none is read
    source: str
    engine: str
    recipe: str
    sha256: str  # of the weights file

    def same_recipe(self, other: "Manifest") -> bool:
        """True when `other` would be built into what this describes."""
        return msgspec.structs.replace(self, sha256="") == msgspec.structs.replace(other, sha256="")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / FILE_NAME).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def read_manifest(folder: Path) -> Manifest | None:
    """None where there is none, or one that an older release wrote: the folder is then built anew."""
    try:
        return msgspec.json.decode((folder / FILE_NAME).read_bytes(), type=Manifest)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def check_prompt_version(version: str) -> None:
    """UsageError for weights that were trained on a rendering which this code does not have as the trained one."""
    if version != BARE:
        raise UsageError(
            f"the model was trained on the prompt {version or '(unknown)'!r}, this code renders {BARE!r} for trained "
            "models: train it again, or serve it with the code of its commit"
        )


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
