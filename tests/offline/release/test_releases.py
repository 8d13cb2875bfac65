"""A trained run of random weights, made ready to serve: the real conversion and the real engine."""

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from offline.release.releases import HeldOut, Release, read_release, release_run, released
from offline.training import gates
from offline.training.bases import load_base, save_model
from offline.training.material import SIGNALS, prompts_of
from offline.training.pruning import prune_blocks
from offline.training.tiny import write_tiny
from schemas.errors import KeenstreamError, UsageError
from tests.offline.release.finished import write_finished
from tests.offline.training.world import readers, write_tokenizer

HELD_OUT = HeldOut(
    prompts=prompts_of(readers(12)), score=lambda lists: {gates.HELD_OUT: len(lists) / 100, SIGNALS: 0.25}
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pruned to three blocks."""
    folder, tokenizer = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(tokenizer)
    write_tiny(tokenizer, folder / "base", width=16, tied=True)
    loaded = load_base(str(folder / "base"))
    save_model(loaded._replace(model=prune_blocks(loaded.model, [0, 1, 3])), folder / "model")
    return write_finished(folder, folder / "base")


def make(run: Path, releases: Path, **options: float) -> Release:
    return release_run(run, releases, HELD_OUT, now_ms=5, progress=lambda step: None, precision="f32", **options)


def test_a_pruned_run_becomes_a_release_that_writes_the_same_lists(run: Path, tmp_path: Path) -> None:
    release = make(run, tmp_path)
    assert (release.number, release.layers, release.model_version) == (1, 3, "keenstream-student-1")
    assert release.agreement.lists == 12
    assert release.scores == {"held_out": 0.12, "signals_recall_at_10": 0.25}
    assert release.agreement.overlap > 0.9
    assert read_release(tmp_path, 1) == release
    assert make(run, tmp_path).number == 2
    assert released(tmp_path) == [1, 2]
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2"}  # no scratch is left


def test_lists_that_differ_too_much_leave_no_release(run: Path, tmp_path: Path) -> None:
    with pytest.raises(KeenstreamError, match="101% are wanted"):
        make(run, tmp_path, least_overlap=1.01)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"state": "running"}, "is not finished"),
        ({"prompt_version": "examples-1"}, "trained on the prompt 'examples-1', this code renders 'bare-1'"),
        ({"tokenizer_sha256": "0" * 64}, "is not the one that the run was trained with"),
    ],
)
def test_a_run_that_cannot_be_served_is_refused(run: Path, tmp_path: Path, changes: dict[str, str], told: str) -> None:
    other = Path(shutil.copytree(run, tmp_path / "run"))
    manifest = json.loads((other / "manifest.json").read_text()) | changes
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match=told):
        make(other, tmp_path / "releases")
    assert released(tmp_path / "releases") == []


def test_a_release_that_was_changed_or_is_not_there_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none yet"):
        read_release(tmp_path, 1)
    release = make(run, tmp_path)
    with pytest.raises(UsageError, match="there are: 1"):
        read_release(tmp_path, 9)
    changed = msgspec.structs.replace(release, served_sha256="0")
    (tmp_path / "1" / "release.json").write_bytes(msgspec.json.encode(changed))
    with pytest.raises(UsageError, match="are not those that were checked"):
        read_release(tmp_path, 1)
