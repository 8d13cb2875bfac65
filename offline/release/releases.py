"""Releases: trained runs made ready to serve, numbered, each in a folder that appears whole.

    models/releases/student/3/served/       what the engine loads
    models/releases/student/3/release.json  run, data, commit, scores and checks

A release is checked before it is there; whether it is served is another step (promotion.py).
"""

import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from offline.release.agreement import Agreement, agreement, check_agreement
from offline.release.folders import build_folder
from offline.release.manifest import check_prompt_version, read_manifest
from offline.release.served_code import ServedStudent
from offline.release.student import Progress, convert
from offline.training.bases import load_base, save_model
from offline.training.greedy import ListWriter
from offline.training.manifest import RunManifest, finished_run
from offline.training.run import MODEL
from offline.training.vocabulary import tokenizer_sha256
from schemas.errors import UsageError
from schemas.names import Model
from schemas.prompt import BARE
from schemas.queries import parse_queries

RECORD, SERVED = "release.json", "served"
NAME = "keenstream-student"  # of the weights; a release's number is their version
LEAST_OVERLAP = 0.7
COMPARED = 200  # lists, as trained and as served
BESIDE_SIGNALS = "beside_signals_recall_at_10"  # a score: lists and the reader's own signals together, as served
_NUMBER = re.compile(r"[1-9]\d*")


class HeldOut(msgspec.Struct, frozen=True, kw_only=True):
    """Readers that no run has seen, as a release is judged on them."""

    prompts: Sequence[str]
    score: Callable[[Sequence[Sequence[str]]], dict[str, float]]  # a list for each -> HELD_OUT, BESIDE_SIGNALS, SIGNALS
    compared: int = COMPARED  # the first so many have their lists written as trained too


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """What is written beside the served weights."""

    number: int
    run: RunManifest
    run_folder: str
    tokenizer_sha256: str
    layers: int
    agreement: Agreement
    scores: dict[str, float]  # Recall@10 on held-out readers: the lists alone, beside the own signals, those alone
    served_sha256: str
    released_at: int  # UTC ms

    @property
    def model_version(self) -> str:
        """As the served model says it."""
        return f"{NAME}-{self.number}"


def release_run(
    run_folder: Path,
    releases: Path,
    held_out: HeldOut,
    *,
    now_ms: int,
    progress: Progress,
    least_overlap: float = LEAST_OVERLAP,
    precision: str = "auto",
) -> Release:
    """Merge, convert and check the model of a finished run on held-out readers."""
    run = finished_run(run_folder)
    check_prompt_version(run.prompt_version)
    number = max(released(releases), default=0) + 1
    made: list[Release] = []

    def fill(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=releases, prefix=".merged-") as scratch:
            layers, served = _convert(run, run_folder, Path(scratch), folder / SERVED, number, progress)
            trained = ListWriter(*load_base(scratch)[:2], max_new_tokens=list_length(run))
            progress(f"writing {len(held_out.prompts)} lists with the served weights, some with the trained ones too")
            before = trained.write(held_out.prompts[: held_out.compared])
            after = served_lists(run, folder / SERVED, held_out, precision)
        release = Release(
            number=number,
            run=run,
            run_folder=str(run_folder),
            tokenizer_sha256=run.tokenizer_sha256,
            layers=layers,
            agreement=check_agreement(agreement(before, after[: len(before)]), least_overlap),
            scores=held_out.score([parse_queries(text) for text in after]),
            served_sha256=served,
            released_at=now_ms,
        )
        (folder / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(release), indent=2) + b"\n")
        made.append(release)

    releases.mkdir(parents=True, exist_ok=True)
    build_folder(releases / str(number), fill)
    return made[0]


def _convert(
    run: RunManifest, run_folder: Path, merged: Path, served: Path, number: int, progress: Progress
) -> tuple[int, str]:
    """Number of blocks, and the hash of the served weights."""
    progress("merging the weights")
    trained = load_base(str(run_folder / MODEL))
    save_model(trained, merged)
    _same_tokenizer(run, merged, run_folder)
    made_of = f"data {run.data_sha256[:12]}, weights {run.model_sha256[:12]}, commit {run.commit[:12]}"
    manifest = convert(
        merged,
        served,
        name=NAME,
        version=str(number),
        prompt_version=BARE,
        source=f"{run.kind} run, {made_of}",
        progress=progress,
    )
    return trained.model.config.num_hidden_layers, manifest.sha256


def served_lists(run: RunManifest, served: Path, held_out: HeldOut, precision: str) -> list[str]:
    """What the served engine writes for the held-out readers, greedy."""
    student = ServedStudent(served, max_new_tokens=list_length(run), precision=precision)
    return student.write(list(held_out.prompts))


def list_length(run: RunManifest) -> int:
    """New tokens of a list, at most, as the run was trained."""
    return int(run.settings.get("max_new_tokens", 80))


def _same_tokenizer(run: RunManifest, merged: Path, run_folder: Path) -> None:
    found = tokenizer_sha256(merged)
    if run.tokenizer_sha256 and found != run.tokenizer_sha256:
        raise UsageError(
            f"the tokenizer in {run_folder / MODEL} ({found[:12]}) is not the one that the run was trained with "
            f"({run.tokenizer_sha256[:12]}): the folder was changed; train it again"
        )


def released(releases: Path) -> list[int]:
    """Numbers of the whole releases, ascending."""
    return sorted(int(path.name) for path in releases.glob("*") if _NUMBER.fullmatch(path.name))


def read_release(releases: Path, number: int) -> Release:
    """UsageError names the numbers there are; a release whose weights were changed since is refused."""
    try:
        record = msgspec.json.decode((releases / str(number) / RECORD).read_bytes(), type=Release)
    except FileNotFoundError:
        known = ", ".join(map(str, released(releases))) or "none yet: run `keenstream models release RUN`"
        raise UsageError(f"there is no release {number} in {releases}; there are: {known}") from None
    manifest = read_manifest(releases / str(number) / SERVED)
    if manifest is None or manifest.sha256 != record.served_sha256:
        raise UsageError(f"the weights of release {number} are not those that were checked: release the run again")
    return record


def discard(releases: Path, number: int) -> None:
    """Remove a release; what is served of it is a copy (or another link to the same bytes) and stays."""
    shutil.rmtree(releases / str(number))


def releases_below(models: Path) -> Path:
    return models / "releases" / Model.STUDENT
