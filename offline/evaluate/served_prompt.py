"""The rendering that a checkpoint reads, as its manifest says: weights trained on one are not judged by another."""

from pathlib import Path

import msgspec

from schemas.errors import Unavailable, UsageError
from schemas.prompt import BARE, PromptVersion, known_prompt

MODEL, MANIFEST = "model", "manifest.json"  # of a training run (offline/training/run.py)


class _Described(msgspec.Struct):
    """What the manifests of runs and of built models have in common."""

    prompt_version: str


def checkpoint_in(place: str) -> tuple[str, PromptVersion]:
    """Folder (or a hub's name) of a model of transformers and its prompt: `place` may be a run's folder.

    The manifest in the folder or in that of its run says which; a checkpoint without one is taken for a trained model.
    """
    folder = Path(place) / MODEL if (Path(place) / MODEL).is_dir() else Path(place)
    for manifest in (folder / MANIFEST, folder.parent / MANIFEST):
        try:
            described = msgspec.json.decode(manifest.read_bytes(), type=_Described)
        except (OSError, msgspec.MsgspecError):
            continue
        return str(folder), _known(described.prompt_version, place)
    if not folder.exists() and (place.startswith((".", "/")) or place.count("/") > 1):  # else a name: OWNER/MODEL
        raise UsageError(f"cannot load the model {place}: there is no such folder")
    return str(folder) if folder.exists() else place, BARE


def _known(version: str, place: str) -> PromptVersion:
    try:
        return known_prompt(version)
    except Unavailable:
        raise UsageError(f"{place} was trained on the prompt {version!r}, which this code does not render") from None
