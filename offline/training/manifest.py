"""What a training run is: written into its folder before the first step, so that a later call knows what it resumes."""

import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import msgspec

from schemas.errors import UsageError

FILE_NAME = "manifest.json"
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy", "openvino")

Kind = Literal["warm-start", "teacher", "student", "cleaner"]
State = Literal["running", "done", "stopped"]


class RunManifest(msgspec.Struct, frozen=True, kw_only=True):
    """One run. What it is made of stands first; what came of it follows."""

    kind: Kind
    size: str  # tiny | laptop | cluster
    settings: dict[str, Any]  # of the stage, as msgspec.to_builtins gives them
    data_sha256: str  # of the examples
    base: str  # what training started from: a run's folder or the name of a model
    base_sha256: str = ""  # of its weights; "" for a name
    teacher: str = ""  # of a student
    method: str = ""  # of a student: on-policy | supervised | none
    judge: str = ""  # of a teacher: the model that judged lists; "" for the embedding judges
    prompt_version: str = ""
    commit: str = ""
    libraries: dict[str, str] = {}
    started_at: int = 0  # UTC ms
    state: State = "running"
    reason: str = ""  # why it stopped early
    steps: int = 0  # done
    scores: dict[str, float] = {}
    tokenizer_sha256: str = ""
    model_sha256: str = ""  # of the weights that it made

    def differences(self, other: "RunManifest") -> list[str]:
        """Names of what makes the two different runs; commit and libraries may change between slices of one run."""
        made_of = (
            "kind",
            "size",
            "settings",
            "data_sha256",
            "base",
            "base_sha256",
            "teacher",
            "method",
            "judge",
            "prompt_version",
        )
        return [name for name in made_of if getattr(self, name) != getattr(other, name)]


def write_run_manifest(folder: Path, manifest: RunManifest) -> None:
    """By a temporary file and rename: a reader sees the old or the new one."""
    part = folder / f".{FILE_NAME}.part"
    part.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    part.replace(folder / FILE_NAME)


def read_run_manifest(folder: Path) -> RunManifest | None:
    """None where no run has begun; UsageError for a file that is not a manifest."""
    try:
        return msgspec.json.decode((folder / FILE_NAME).read_bytes(), type=RunManifest)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise UsageError(f"{folder / FILE_NAME} is no run manifest ({error}): choose another folder") from error


def finished_run(folder: Path, kind: Kind | None = None) -> RunManifest:
    """The manifest of a run that ended with a model; UsageError says what is missing."""
    manifest = read_run_manifest(folder)
    if manifest is None:
        raise UsageError(f"{folder} is no training run: it has no {FILE_NAME}")
    if kind and manifest.kind != kind:
        raise UsageError(f"{folder} is a run of kind {manifest.kind!r}, a {kind!r} run is needed")
    if manifest.state == "running":
        raise UsageError(f"the run {folder} is not finished: repeat its command, it resumes where it ended")
    return manifest


def library_versions(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def source_commit(folder: Path = Path(__file__).parent) -> str:
    """The commit of the code, `+changes` after it where files differ; "" outside a checkout."""
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return f"{head}+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
