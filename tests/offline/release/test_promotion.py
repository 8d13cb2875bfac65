"""Promotion and the way back, on a repository of files and a server that takes the latest version as Triton does."""

from pathlib import Path

import msgspec
import pytest

from offline.release.agreement import agreement
from offline.release.manifest import Manifest, read_manifest, write_manifest
from offline.release.promotion import promote, read_history, rollback
from offline.release.releases import Release
from offline.release.repository import assemble_repository
from offline.training.manifest import RunManifest
from schemas.errors import KeenstreamError, Unavailable, UsageError
from schemas.names import Model


class LatestVersion:
    """Serves the greatest version at the time of a load; `broken` versions of weights cannot be loaded."""

    def __init__(self, repository: Path, broken: str = "") -> None:
        self._folder, self._broken, self.loads = repository / Model.STUDENT, broken, 0
        self._now = ("", "")

    def load(self) -> None:
        self.loads += 1
        latest = max((path for path in self._folder.iterdir() if path.is_dir()), key=lambda path: int(path.name))
        manifest = read_manifest(latest / "weights")
        assert manifest is not None
        found = f"{manifest.name}-{manifest.version}"
        if found == self._broken:
            raise Unavailable("the engine failed")
        self._now = found, manifest.prompt_version

    def versions(self) -> tuple[str, str]:
        return self._now


def write_weights(folder: Path, name: str, version: str, prompt: str = "bare-1") -> Path:
    folder.mkdir(parents=True)
    write_manifest(
        folder, Manifest(name=name, version=version, prompt_version=prompt, source="", engine="", recipe="", sha256="")
    )
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    base = write_weights(tmp_path / "base", "smollm2", "1", "examples-1")
    assemble_repository(tmp_path / "models" / "repository", {Model.STUDENT: base})
    return tmp_path / "models" / "repository"


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    for number in ("1", "2"):
        write_weights(tmp_path / "releases" / number / "served", "keenstream-student", number)
    return tmp_path / "releases"


def release(number: int = 1, *, held_out: float = 0.2, prompt: str = "bare-1") -> Release:
    run = RunManifest(kind="student", size="tiny", settings={}, data_sha256="", base="", prompt_version=prompt)
    return Release(
        number=number, run=run, run_folder="", tokenizer_sha256="", layers=1,
        agreement=agreement(["a"], ["a"]), served_sha256="", released_at=0,
        scores={"held_out": held_out, "signals_recall_at_10": 0.1},
    )  # fmt: skip


def versions(repository: Path) -> list[str]:
    return sorted(path.name for path in (repository / Model.STUDENT).iterdir() if path.is_dir())


def test_a_promoted_release_is_served_and_the_version_before_is_kept(repository: Path, releases: Path) -> None:
    server = LatestVersion(repository)
    first = promote(release(), releases, repository, server, now_ms=5)
    assert (first.version, server.versions()) == (2, ("keenstream-student-1", "bare-1"))
    second = promote(release(2), releases, repository, server, now_ms=6)
    assert versions(repository) == ["1", "2", "3"]
    assert read_history(repository) == [first, second]
    assert {path.name for path in repository.iterdir()} == {Model.STUDENT}  # a stray folder would end Triton


def test_back_is_one_version_at_a_time_until_the_first(repository: Path, releases: Path) -> None:
    server = LatestVersion(repository)
    first = promote(release(), releases, repository, server, now_ms=5)
    promote(release(2), releases, repository, server, now_ms=6)
    assert rollback(repository, server) == first
    assert server.versions()[0] == "keenstream-student-1"
    assert rollback(repository, server) is None
    assert server.versions() == ("smollm2-1", "examples-1")
    with pytest.raises(UsageError, match="nothing was promoted"):
        rollback(repository, server)
    assert {path.name for path in repository.parent.iterdir()} == {"repository", "promoted.json"}


@pytest.mark.parametrize("worth", [0.1, 0.05])
def test_what_does_not_beat_the_readers_own_signals_needs_force(repository: Path, releases: Path, worth: float) -> None:
    poor = release(held_out=worth)
    with pytest.raises(UsageError, match=r"their own signals as queries find 0\.100: it earns nothing"):
        promote(poor, releases, repository, None, now_ms=5)
    assert versions(repository) == ["1"]
    assert promote(poor, releases, repository, None, now_ms=5, force=True).forced


def test_another_prompt_is_refused_even_by_force(repository: Path, releases: Path) -> None:
    with pytest.raises(UsageError, match="trained on the prompt 'bare-0'"):
        promote(release(prompt="bare-0"), releases, repository, None, now_ms=5, force=True)
    assert versions(repository) == ["1"]


@pytest.mark.parametrize("broken", ["keenstream-student-1", ""])
def test_a_canary_that_fails_brings_back_what_was_served(repository: Path, releases: Path, broken: str) -> None:
    """The weights do not load, or others answer than were promoted."""
    server = LatestVersion(repository, broken)
    wrong = release() if broken else msgspec.structs.replace(release(), number=2)
    if not broken:
        write_manifest(
            releases / "2" / "served",
            Manifest(name="other", version="2", prompt_version="bare-1", source="", engine="", recipe="", sha256=""),
        )
    with pytest.raises(KeenstreamError, match="was taken back"):
        promote(wrong, releases, repository, server, now_ms=5)
    assert server.versions()[0] == "smollm2-1"
    assert (versions(repository), read_history(repository), server.loads) == (["1"], [], 2)


def test_without_a_server_the_repository_is_written_for_the_next_start(repository: Path, releases: Path) -> None:
    promote(release(), releases, repository, None, now_ms=5)
    assert versions(repository) == ["1", "2"]
    assert rollback(repository, None) is None
    assert versions(repository) == ["1"]
