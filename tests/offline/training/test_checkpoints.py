from pathlib import Path

import pytest

from offline.training.checkpoints import KEPT, Checkpoints, is_whole, step_of


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    made = Checkpoints(tmp_path)
    made.clear_staging()
    return made


def save(checkpoints: Checkpoints, step: int) -> Path:
    saved = checkpoints.staging / f"checkpoint-{step}"
    (saved / "sub").mkdir(parents=True)
    (saved / "weights").write_bytes(b"w" * 100)
    (saved / "sub" / "state").write_text("s")
    return checkpoints.commit(step)


def test_the_latest_is_by_number_and_old_ones_go(checkpoints: Checkpoints) -> None:
    for step in (5, 10, 100):
        save(checkpoints, step)
    latest, broken = checkpoints.latest()
    assert latest is not None
    assert (step_of(latest), broken) == (100, [])
    assert len(list(checkpoints.folder.glob("checkpoint-*"))) == KEPT


@pytest.mark.parametrize("harm", ["cut", "missing", "list"])
def test_a_checkpoint_cut_short_is_passed_over(checkpoints: Checkpoints, harm: str) -> None:
    save(checkpoints, 1)
    broken = save(checkpoints, 2)
    if harm == "cut":
        (broken / "weights").write_bytes(b"w" * 99)
    elif harm == "missing":
        (broken / "sub" / "state").unlink()
    else:
        (broken / "files.json").write_text("{")
    assert not is_whole(broken)
    assert checkpoints.latest() == (checkpoints.folder / "checkpoint-1", [broken])


def test_what_was_not_committed_is_not_there(checkpoints: Checkpoints) -> None:
    (checkpoints.staging / "checkpoint-7").mkdir()
    assert checkpoints.latest() == (None, [])
    checkpoints.clear_staging()
    assert list(checkpoints.staging.iterdir()) == []


def test_the_same_step_may_be_saved_again(checkpoints: Checkpoints) -> None:
    save(checkpoints, 3)
    (checkpoints.folder / "checkpoint-3" / "weights").write_bytes(b"")
    assert is_whole(save(checkpoints, 3))
