"""The versions of one model in a repository: the next is written and loaded without an unload, or taken back.

Triton takes a new version at a load of its model; unloading first fails requests (1184 errors in 3.5 s against none,
docs: pitfalls, section 3). The version before stays, so that going back is removing the newer one and loading again.
"""

import tempfile
from pathlib import Path
from typing import Protocol

from schemas.errors import KeenstreamError, UsageError


class ModelServer(Protocol):
    """The server of one repository, seen as that of one model."""

    def load(self) -> None:
        """Take up what the repository holds for the model now, without an unload."""
        ...

    def versions(self) -> tuple[str, str]:
        """Version of the weights and of the prompt, from a real inference; raises KeenstreamError when none comes."""
        ...


def versions_of(repository: Path, model: str) -> list[int]:
    """Ascending."""
    return sorted(int(path.name) for path in (repository / model).glob("*") if path.name.isdigit())


def next_version(repository: Path, model: str) -> int:
    return max(versions_of(repository, model), default=0) + 1


def withdraw(repository: Path, model: str, version: int) -> "tempfile.TemporaryDirectory[str]":
    """Move a version out of the repository in one rename; the folder returned holds it until it is cleaned up."""
    scratch = tempfile.TemporaryDirectory(dir=repository.parent, prefix=f".{repository.name}-")
    (repository / model / str(version)).rename(Path(scratch.name) / str(version))
    return scratch


def load_or_withdraw(
    server: ModelServer, repository: Path, model: str, version: int, wanted: tuple[str, str], name: str
) -> None:
    """Load `version` and ask it; when it does not answer as `wanted`, what was served before is served again.

    KeenstreamError then says why `name` was taken back.
    """
    try:
        server.load()
        found = server.versions()
        if found != wanted:
            raise KeenstreamError(f"the canary was answered by {found}, not by {wanted}")
    except KeenstreamError as error:
        if len(versions_of(repository, model)) > 1:
            with withdraw(repository, model, version):
                server.load()
        raise KeenstreamError(f"{name} was taken back, what was served before is served: {error}") from error


def remove_latest(repository: Path, model: str, server: ModelServer | None, served: str) -> None:
    """Go back from the latest version, whose weights say `served`, to the one before it.

    UsageError when there is none before it; KeenstreamError when the server goes on with the removed one.
    """
    found = versions_of(repository, model)
    if len(found) < 2:
        only = f"version {found[0]} is the only one" if found else f"there is no {model}"
        raise UsageError(f"{only} in {repository}, with none to go back to: serve another one instead")
    with withdraw(repository, model, found[-1]):
        if server:
            server.load()
            if server.versions()[0] == served:
                raise KeenstreamError(f"Triton still serves {served}: see its log")
