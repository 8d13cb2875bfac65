"""From a release to what is served, and back: write the next version, load it, ask it, or take it back.

Triton takes a new version at a load of its model; unloading first fails requests (1184 errors in 3.5 s against none,
docs: pitfalls, section 3). The version before stays in the repository, so that going back is removing the newer one and
loading again.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from offline.release.manifest import check_prompt_version
from offline.release.releases import SERVED, Release
from offline.release.repository import add_version
from offline.training.gates import HELD_OUT
from offline.training.material import SIGNALS
from schemas.errors import KeenstreamError, UsageError
from schemas.names import Model

HISTORY = "promoted.json"


class ModelServer(Protocol):
    """The server of one repository."""

    def load(self) -> None:
        """Take up what the repository holds for the student now, without an unload."""
        ...

    def versions(self) -> tuple[str, str]:
        """Version of the weights and of the prompt, from a real inference; raises KeenstreamError when none comes."""
        ...


class Promoted(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the history."""

    release: int
    version: int  # folder in the repository
    model_version: str
    at_ms: int
    forced: bool = False


def promote(
    release: Release, releases: Path, repository: Path, server: ModelServer | None, *, now_ms: int, force: bool = False
) -> Promoted:
    """Serve `release`. Without a server the repository is written, and the next start of one serves it.

    UsageError when it does not beat the reader's own signals, unless `force`. When the canary fails, what was served
    before is served again, and KeenstreamError says why.
    """
    check_prompt_version(release.run.prompt_version)
    if not force:
        check_worth(release)
    history = read_history(repository)
    version = max(_versions(repository), default=0) + 1
    add_version(repository, Model.STUDENT, releases / str(release.number) / SERVED, version=version)
    if server:
        _load_or_withdraw(server, release, repository, version)
    entry = Promoted(
        release=release.number, version=version, model_version=release.model_version, at_ms=now_ms, forced=force
    )
    _write_history(repository, [*history, entry])
    return entry


def rollback(repository: Path, server: ModelServer | None) -> Promoted | None:
    """Serve what was served before the latest promotion; None when that was the model of the set-up."""
    history = read_history(repository)
    if not history:
        raise UsageError("nothing was promoted here: there is no version to go back to")
    current, earlier = history[-1], history[:-1]
    if not [version for version in _versions(repository) if version < current.version]:
        raise UsageError(f"version {current.version} is the only one in {repository}: promote another release instead")
    restore = _withdraw(repository, current.version)
    if server:
        server.load()
        if server.versions()[0] == current.model_version:
            raise KeenstreamError(f"Triton still serves {current.model_version}: see its log")
    restore.cleanup()
    _write_history(repository, earlier)
    return earlier[-1] if earlier else None


def check_worth(release: Release) -> None:
    """UsageError for a release that earns nothing."""
    check_scores(f"release {release.number}", release.scores)


def check_scores(name: str, scores: Mapping[str, float]) -> None:
    """UsageError where the own signals of held-out readers find at least as much as the model's lists."""
    if scores[HELD_OUT] <= scores[SIGNALS]:
        raise UsageError(
            f"{name} finds {scores[HELD_OUT]:.3f} of what held-out readers click (Recall@10), their own signals as "
            f"queries find {scores[SIGNALS]:.3f}: it earns nothing; use --force to serve it all the same"
        )


def read_history(repository: Path) -> list[Promoted]:
    """Oldest first; outside the repository folder, where a stray file is no harm but a stray folder ends the server."""
    try:
        return msgspec.json.decode(_history(repository).read_bytes(), type=list[Promoted])
    except FileNotFoundError:
        return []


def _load_or_withdraw(server: ModelServer, release: Release, repository: Path, version: int) -> None:
    try:
        server.load()
        found = server.versions()
        wanted = (release.model_version, release.run.prompt_version)
        if found != wanted:
            raise KeenstreamError(f"the canary was answered by {found}, not by {wanted}")
    except KeenstreamError as error:
        if len(_versions(repository)) > 1:
            with _withdraw(repository, version):
                server.load()
        raise KeenstreamError(
            f"release {release.number} was taken back, what was served before is served: {error}"
        ) from error


def _withdraw(repository: Path, version: int) -> "tempfile.TemporaryDirectory[str]":
    """Move a version out of the repository in one rename; the folder returned holds it until it is cleaned up."""
    scratch = tempfile.TemporaryDirectory(dir=repository.parent, prefix=f".{repository.name}-")
    (repository / Model.STUDENT / str(version)).rename(Path(scratch.name) / str(version))
    return scratch


def _versions(repository: Path) -> list[int]:
    return sorted(int(path.name) for path in (repository / Model.STUDENT).glob("*") if path.name.isdigit())


def _history(repository: Path) -> Path:
    return repository.parent / HISTORY


def _write_history(repository: Path, history: list[Promoted]) -> None:
    part = repository.parent / f".{HISTORY}.part"
    part.write_bytes(msgspec.json.format(msgspec.json.encode(history), indent=2) + b"\n")
    part.replace(_history(repository))
