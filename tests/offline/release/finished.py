"""What makes a folder with a `model/` a finished run."""

from pathlib import Path

from offline.release.manifest import sha256_of
from offline.training.manifest import RunManifest, write_run_manifest
from offline.training.run import weights_of
from offline.training.vocabulary import tokenizer_sha256


def write_finished(folder: Path, base: Path) -> Path:
    """`folder` again, with the manifest that `keenstream train student` leaves beside `model/`."""
    manifest = RunManifest(
        kind="student",
        size="tiny",
        settings={"max_new_tokens": 10},
        data_sha256="d" * 64,
        base=str(base),
        prompt_version="bare-1",
        state="done",
        tokenizer_sha256=tokenizer_sha256(folder / "model"),
        model_sha256=sha256_of(weights_of(folder / "model")),
    )
    write_run_manifest(folder, manifest)
    return folder
