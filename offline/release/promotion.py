"""From a release to what is served, and back: write the next version, load it, ask it, or take it back."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from offline.release.manifest import check_prompt_version
from offline.release.releases import SERVED, Release
from offline.release.repository import add_version
from offline.release.versions import ModelServer, load_or_withdraw, next_version, remove_latest
from offline.training.gates import HELD_OUT
from offline.training.material import SIGNALS
from schemas.errors import UsageError
from schemas.names import Model

HISTORY = "promoted.json"


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
    version = next_version(repository, Model.STUDENT)
    add_version(repository, Model.STUDENT, releases / str(release.number) / SERVED, version=version)
    if server:
        wanted = (release.model_version, release.run.prompt_version)
        load_or_withdraw(server, repository, Model.STUDENT, version, wanted, f"release {release.number}")
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
    remove_latest(repository, Model.STUDENT, server, current.model_version)
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


def _history(repository: Path) -> Path:
    return repository.parent / HISTORY


def _write_history(repository: Path, history: list[Promoted]) -> None:
    part = repository.parent / f".{HISTORY}.part"
    part.write_bytes(msgspec.json.format(msgspec.json.encode(history), indent=2) + b"\n")
    part.replace(_history(repository))
