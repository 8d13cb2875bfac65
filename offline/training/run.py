"""A run is a folder: manifest, lock, checkpoints, curves, and at the end a model.

    manifest.json   what it is made of, its state and scores
    lock            held by the process that trains; the system frees it when that process dies, however it dies
    checkpoints/    the latest whole ones
    best/           weights that did best on held-out readers, while it runs: kept if a gate stops it
    curves.jsonl, curves.csv, curves.png
    model/          appears whole when the run is done

Opening a folder that holds a run of the same make resumes it; of another make is refused.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from offline.release.folders import build_folder
from offline.release.manifest import sha256_of
from offline.training.best import Best
from offline.training.checkpoints import Checkpoints, step_of
from offline.training.curves import Curves
from offline.training.manifest import RunManifest, read_run_manifest, write_run_manifest
from schemas.errors import FullDisk, UsageError
from schemas.full_disk import full_disk_told

LOCK, CHECKPOINTS, MODEL = "lock", "checkpoints", "model"

Tell = Callable[[str], None]  # one sentence for whoever watches


class Run:
    """An open run; this process holds its lock."""

    def __init__(self, folder: Path, manifest: RunManifest, tell: Tell) -> None:
        self.folder, self.manifest, self.tell = folder, manifest, tell
        self.checkpoints = Checkpoints(folder / CHECKPOINTS)
        self.curves = Curves(folder)
        self.best = Best(folder)

    @property
    def model(self) -> Path:
        return self.folder / MODEL

    @property
    def finished(self) -> bool:
        return self.manifest.state != "running"

    def resume_from(self) -> Path | None:
        """The checkpoint to go on from; curves are cut back to it."""
        found, broken = self.checkpoints.latest()
        for place in broken:
            self.tell(f"{place.name} is not whole (a full disk, or a machine that was lost): going back before it")
        if broken and not found:
            self.tell("no checkpoint is whole: beginning with the first step")
        self.checkpoints.clear_staging()
        self.curves.rewind(step_of(found) if found else -1)
        if found:
            self.tell(f"resuming from {found.name}")
        return found

    def record(self, **changes: object) -> RunManifest:
        """Write the manifest with these fields changed."""
        self.manifest = msgspec.structs.replace(self.manifest, **changes)
        write_run_manifest(self.folder, self.manifest)
        return self.manifest

    def finish(self, save: Callable[[Path], None], *, steps: int, reason: str, scores: dict[str, float]) -> RunManifest:
        """Keep the model that `save` writes, then say that the run is over: in this order, so that over means whole."""
        build_folder(self.model, save)
        self.curves.write_table()
        self.curves.write_plot()
        state = "stopped" if reason else "done"
        digest = sha256_of(weights_of(self.model))
        done = self.record(state=state, reason=reason, steps=steps, scores=scores, model_sha256=digest)
        self.best.clear()
        return done


def weights_of(folder: Path) -> Path:
    """The file of weights in a saved model or adapter."""
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise UsageError(f"{folder} holds no *.safetensors: it is no trained model")
    return found[0]


@contextmanager
def open_run(folder: Path, wanted: RunManifest, tell: Tell) -> Iterator[Run]:
    """Begin or resume the run in `folder`. UsageError when another process trains there or it is another run."""
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder), _full_disk_told(folder):
        present = read_run_manifest(folder)
        if present is None:
            write_run_manifest(folder, wanted)
        elif different := present.differences(wanted):
            raise UsageError(
                f"{folder} holds another run ({', '.join(different)} differ): choose another folder, or the same "
                "settings and examples to resume that one"
            )
        yield Run(folder, present or wanted, tell)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise UsageError(f"process {file.read().strip() or '?'} is training in {folder}: wait for it") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


@contextmanager
def _full_disk_told(folder: Path) -> Iterator[None]:
    try:
        with full_disk_told(folder, "it resumes"):
            yield
    except FullDisk:
        with suppress(OSError):
            Checkpoints(folder / CHECKPOINTS).clear_staging()
        raise
