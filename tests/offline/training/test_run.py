import errno
from pathlib import Path

import msgspec
import pytest

from offline.training.manifest import RunManifest, finished_run, read_run_manifest
from offline.training.run import open_run
from schemas.errors import KeenstreamError, UsageError

WANTED = RunManifest(kind="teacher", size="tiny", settings={"steps": 3}, data_sha256="d", base="b")


def told(_sentence: str) -> None:
    return None


def save(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weights")


def test_a_run_of_another_make_is_refused_and_names_the_difference(tmp_path: Path) -> None:
    with open_run(tmp_path, WANTED, told):
        pass
    other = msgspec.structs.replace(WANTED, settings={"steps": 4}, data_sha256="e", commit="another")
    with (
        pytest.raises(UsageError, match=r"another run \(settings, data_sha256 differ\)"),
        open_run(tmp_path, other, told),
    ):
        pass


def test_another_commit_resumes_and_what_is_recorded_stays(tmp_path: Path) -> None:
    with open_run(tmp_path, WANTED, told) as run:
        run.record(steps=2)
    with open_run(tmp_path, msgspec.structs.replace(WANTED, commit="later"), told) as again:
        assert again.manifest.steps == 2


def test_a_folder_is_trained_in_by_one_process(tmp_path: Path) -> None:
    refused = pytest.raises(UsageError, match=r"process \d+ is training in")
    with open_run(tmp_path, WANTED, told), refused, open_run(tmp_path, WANTED, told):
        pass
    with open_run(tmp_path, WANTED, told):
        pass


@pytest.mark.parametrize(("reason", "state"), [("", "done"), ("gamed", "stopped")])
def test_over_means_that_the_model_is_whole(tmp_path: Path, reason: str, state: str) -> None:
    with open_run(tmp_path, WANTED, told) as run:
        with pytest.raises(UsageError, match="not finished"):
            finished_run(tmp_path)
        run.finish(save, steps=3, reason=reason, scores={"held_out": 0.5})
    manifest = finished_run(tmp_path, "teacher")
    assert (manifest.state, manifest.reason, manifest.steps, manifest.scores) == (state, reason, 3, {"held_out": 0.5})
    assert len(manifest.model_sha256) == 64


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("I/O error: No space left on device")]
)
def test_a_full_disk_is_told_and_leaves_nothing_half_written(tmp_path: Path, error: Exception) -> None:
    def half(folder: Path) -> None:
        save(folder)
        raise error

    with pytest.raises(KeenstreamError, match=r"the disk of .* is full"), open_run(tmp_path, WANTED, told) as run:
        run.finish(half, steps=3, reason="", scores={})
    manifest = read_run_manifest(tmp_path)
    assert manifest is not None
    assert manifest.state == "running"
    assert not (tmp_path / "model").exists()


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_run(tmp_path, WANTED, told):
        raise ZeroDivisionError


def test_a_run_of_another_kind_or_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no training run"):
        finished_run(tmp_path)
    with open_run(tmp_path, WANTED, told) as run:
        run.finish(save, steps=1, reason="", scores={})
    with pytest.raises(UsageError, match="a 'student' run is needed"):
        finished_run(tmp_path, "student")
    (tmp_path / "manifest.json").write_text('{"kind": 3}')
    with pytest.raises(UsageError, match="is no run manifest"):
        finished_run(tmp_path)
