"""The weights that did best on held-out readers so far: what a run keeps when a gate stops it.

The weights of the last step are those that made the gate close; the last checkpoint is hardly better.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from offline.release.folders import build_folder

FOLDER = "best"
_RECORD, _WEIGHTS = "held_out.json", "model"


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    step: int
    value: float


class Best:
    """Below `run`: `best/model` and what it measured, whole or not there."""

    def __init__(self, run: Path) -> None:
        self._folder = run / FOLDER

    def measured(self) -> Measured | None:
        """None until something was offered, or where its record is cut short."""
        try:
            return msgspec.json.decode((self._folder / _RECORD).read_bytes(), type=Measured)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

    def offer(self, measured: Measured, save: Callable[[Path], object]) -> None:
        """Keep what `save` writes if it is better than what is kept; of equal ones the earlier stays."""
        kept = self.measured()
        if kept and kept.value >= measured.value:
            return

        def fill(folder: Path) -> None:
            save(folder / _WEIGHTS)
            (folder / _RECORD).write_bytes(msgspec.json.encode(measured))

        build_folder(self._folder, fill)

    def copy_to(self, folder: Path) -> None:
        """Its weights' files into `folder`, which is there."""
        shutil.copytree(self._folder / _WEIGHTS, folder, dirs_exist_ok=True)

    def clear(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
