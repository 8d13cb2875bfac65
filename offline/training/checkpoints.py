"""Checkpoints that are whole or not there: written elsewhere, listed with their sizes, renamed into place.

A kill in the middle of a save leaves a staging folder that the next start removes; a file cut short by a full disk or a
lost machine does not match the list, and the checkpoint before it is taken instead.
"""

import re
import shutil
from pathlib import Path

import msgspec

KEPT = 2
LIST = "files.json"
STAGING = ".staging"
_NAME = re.compile(r"checkpoint-(\d+)$")


class Checkpoints:
    """The checkpoints of one run, below `folder`; the trainer saves into `staging`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.staging = folder / STAGING

    def clear_staging(self) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir(parents=True)

    def commit(self, step: int) -> Path:
        """Put what the trainer saved at `step` into its place; older ones than the latest `KEPT` go."""
        saved, place = self.staging / f"checkpoint-{step}", self.folder / f"checkpoint-{step}"
        sizes = {str(path.relative_to(saved)): path.stat().st_size for path in saved.rglob("*") if path.is_file()}
        (saved / LIST).write_bytes(msgspec.json.encode(sizes))
        if place.exists():
            shutil.rmtree(place)
        saved.rename(place)
        for old in self._by_step()[:-KEPT]:
            shutil.rmtree(old)
        return place

    def latest(self) -> tuple[Path | None, list[Path]]:
        """The latest whole checkpoint, and the later ones that are not whole."""
        broken: list[Path] = []
        for place in reversed(self._by_step()):
            if is_whole(place):
                return place, broken
            broken.append(place)
        return None, broken

    def _by_step(self) -> list[Path]:
        return sorted((path for path in self.folder.glob("checkpoint-*") if _NAME.search(path.name)), key=step_of)


def step_of(checkpoint: Path) -> int:
    """The number of steps done at `checkpoint`."""
    found = _NAME.search(checkpoint.name)
    if found is None:
        raise ValueError(f"{checkpoint} is not named like a checkpoint")
    return int(found.group(1))


def is_whole(checkpoint: Path) -> bool:
    """True when every listed file has its size."""
    try:
        sizes = msgspec.json.decode((checkpoint / LIST).read_bytes(), type=dict[str, int])
        return bool(sizes) and all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, msgspec.MsgspecError):
        return False
