"""A trained cleaner checked, and then served or shipped. It is judged by what it adds to the rules on texts that no
training reader had."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from offline.release.cleaner import NAME, WEIGHTS, ShippedCleaner, convert
from offline.release.folders import build_folder
from offline.release.manifest import FILE_NAME, read_manifest, sha256_of
from offline.release.repository import add_version
from offline.release.served_code import ServedCleaner
from offline.release.student import Progress
from offline.release.versions import ModelServer, load_or_withdraw, next_version, remove_latest, versions_of
from offline.training.bases import save_model
from offline.training.cleaner import Judged, read_judged, read_scores
from offline.training.cleaner_scores import BOTH, RULES, CleanerScore
from offline.training.manifest import RunManifest, finished_run
from offline.training.run import MODEL
from offline.training.sequence_classifier import load_classifier
from schemas.errors import KeenstreamError, UsageError
from schemas.names import Model

MOST_BYTES = 5_000_000  # of the shipped folder: it is part of every clone
TOLERANCE = 0.02  # of a probability, by float16 and by the conversion
MOST_WRONG = 0.02  # of the texts to be kept, that may be dropped


def serve_cleaner(
    run_folder: Path, repository: Path, server: ModelServer | None, progress: Progress, *, force: bool = False
) -> str:
    """Write the run's cleaner as the next version, load it and ask it, or take it back; its version of the weights.

    Without a server the next start of one serves it. UsageError when it earns nothing, unless `force`.
    """
    run = _worthy(run_folder, force)
    version = run.model_sha256[:12]
    with tempfile.TemporaryDirectory(dir=repository.parent, prefix=".cleaner-") as scratch:
        served = Path(scratch) / "served"
        convert(run_folder / MODEL, served, version=version, source=_source(run), progress=progress)
        check_as_trained(served, read_judged(run_folder))
        number = next_version(repository, Model.CLEANER)
        add_version(repository, Model.CLEANER, served, version=number)
    if server:
        wanted = (f"{NAME}-{version}", "")
        load_or_withdraw(server, repository, Model.CLEANER, number, wanted, f"the cleaner of {run_folder}")
    return f"{NAME}-{version}"


def rollback_cleaner(repository: Path, server: ModelServer | None) -> str:
    """Serve the version before the latest one; what it says of its weights."""
    found = versions_of(repository, Model.CLEANER)
    remove_latest(repository, Model.CLEANER, server, _says(repository, found[-1]) if found else "")
    return _says(repository, found[-2])


def ship_cleaner(
    run_folder: Path, target: Path, progress: Progress, *, version: str, commands: Sequence[str], force: bool = False
) -> ShippedCleaner:
    """Write the run's cleaner into `target` in float16; a check that fails leaves nothing there."""
    run = _worthy(run_folder, force)
    base = load_classifier(str(run_folder / MODEL))
    shipped = ShippedCleaner(
        version=version,
        weights_sha256="",
        base=run.base,
        steps=run.steps,
        settings=run.settings,
        data_sha256=run.data_sha256,
        commit=run.commit,
        commands=tuple(commands),
        scores=run.scores,
    )

    def fill(folder: Path) -> None:
        nonlocal shipped
        save_model(base._replace(model=base.model.half()), folder)
        with tempfile.TemporaryDirectory(prefix="keenstream-cleaner-") as scratch:
            convert(folder, Path(scratch) / "served", version=version, source=_source(run), progress=progress)
            check_as_trained(Path(scratch) / "served", read_judged(run_folder))
        check_bytes(folder)
        shipped = msgspec.structs.replace(shipped, weights_sha256=sha256_of(folder / WEIGHTS))
        (folder / FILE_NAME).write_bytes(msgspec.json.format(msgspec.json.encode(shipped), indent=2) + b"\n")

    build_folder(target, fill)
    return shipped


def check_worth(scores: Sequence[CleanerScore]) -> None:
    """UsageError for a cleaner that finds no noise beyond the rules, or drops much that was to be kept."""
    unseen = {row.system: row for row in scores if row.texts == "unseen"}
    rules, both = unseen[RULES], unseen[BOTH]
    if (both.recall.value or 0.0) <= (rules.recall.value or 0.0):
        raise UsageError(
            f"on texts of held-out readers the cleaner finds no noise that the rules do not find (recall "
            f"{both.recall.value or 0.0:.3f}): it earns nothing; use --force to serve it all the same"
        )
    if both.wrongly_dropped > MOST_WRONG:
        raise UsageError(
            f"it drops {both.wrongly_dropped:.1%} of what held-out readers' labels keep, {MOST_WRONG:.0%} are allowed: "
            "train with a lower --most-wrong, or use --force"
        )


def check_as_trained(served: Path, judged: Sequence[Judged]) -> None:
    """KeenstreamError when the served weights judge otherwise than the trained ones did."""
    found = ServedCleaner(served).judge([row.text for row in judged])
    worst = float(np.abs(found - np.array([row.noise for row in judged])).max())
    if worst > TOLERANCE:
        raise KeenstreamError(
            f"the served cleaner's probabilities differ from the trained one's by up to {worst:.3f}, {TOLERANCE} are "
            "allowed: the conversion broke the model; serve it with engine 'transformers' instead"
        )


def check_bytes(folder: Path) -> None:
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if total > MOST_BYTES:
        raise UsageError(
            f"{total / 1e6:.1f} MB are too many to ship, {MOST_BYTES / 1e6:.0f} are allowed: train from a smaller base"
        )


def _worthy(run_folder: Path, force: bool) -> RunManifest:
    run = finished_run(run_folder, "cleaner")
    if not force:
        check_worth(read_scores(run_folder))
    return run


def _source(run: RunManifest) -> str:
    return f"cleaner run, labels {run.data_sha256[:12]}, weights {run.model_sha256[:12]}, commit {run.commit[:12]}"


def _says(repository: Path, number: int) -> str:
    manifest = read_manifest(repository / Model.CLEANER / str(number) / "weights")
    return f"{manifest.name}-{manifest.version}" if manifest else ""
