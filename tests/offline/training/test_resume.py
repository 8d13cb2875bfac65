"""A run that is killed or interrupted ends where one that was left alone ends."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from offline.training.curves import Curves
from offline.training.manifest import read_run_manifest, write_run_manifest
from offline.training.material import Material
from offline.training.progress import Progress
from offline.training.run import weights_of
from offline.training.stage import Session, SliceOver
from tests.offline.training.runs import run_stage

ROOT = Path(__file__).parents[3]


@pytest.mark.fault
def test_a_killed_run_resumes_and_makes_the_same_model(
    base: str, material: Material, session: Session, seen: list[Progress], told: list[str], tmp_path: Path
) -> None:
    """GRPO, whose samples are drawn anew after the checkpoint of step 2."""
    command = [sys.executable, "-m", "tests.offline.training.killed", base, str(tmp_path / "killed"), "teacher", "3"]
    assert subprocess.run(command, cwd=ROOT, timeout=300, check=False).returncode == -signal.SIGKILL
    left = read_run_manifest(tmp_path / "killed")
    assert left is not None
    assert left.state == "running"
    assert not (tmp_path / "killed" / "model").exists()

    done = run_stage("teacher", tmp_path / "killed", base, material, session)
    assert told[-1] == "resuming from checkpoint-2"
    assert seen[0].step == 3  # what was done before the checkpoint is not done again
    again = run_stage("teacher", tmp_path / "whole", base, material, session)
    assert (done.steps, done.state, again.steps) == (4, "done", 4)
    weights = [weights_of(tmp_path / name / "model").read_bytes() for name in ("killed", "whole")]
    assert weights[0] == weights[1]
    steps = [row["step"] for row in Curves(tmp_path / "killed").rows if "loss" in row]
    assert steps == [1.0, 2.0, 3.0, 4.0]


def test_ctrl_c_keeps_a_checkpoint_of_the_step_that_ran(
    base: str, material: Material, session: Session, told: list[str], seen: list[Progress], tmp_path: Path
) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.step == 3:  # test_learning sends the signal itself; why not here: tests/offline/test_runners.py
            handler = signal.getsignal(signal.SIGINT)
            assert callable(handler)
            handler(signal.SIGINT, None)

    with pytest.raises(KeyboardInterrupt):
        run_stage("warm-start", tmp_path, base, material, msgspec.structs.replace(session, watch=interrupt))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    run_stage("warm-start", tmp_path, base, material, session)
    assert told[-1] == "resuming from checkpoint-4"
    assert [progress.step for progress in seen] == [5, 6]


def test_a_slice_ends_with_its_time_and_says_how_to_go_on(
    base: str, material: Material, session: Session, told: list[str], tmp_path: Path
) -> None:
    with pytest.raises(SliceOver, match=r"1 of 6 steps .* are done and its time is over"):
        run_stage("warm-start", tmp_path, base, material, msgspec.structs.replace(session, until=0.0))
    run_stage("warm-start", tmp_path, base, material, session)
    assert told[-1] == "resuming from checkpoint-1"


def test_a_finished_run_is_not_run_again(
    base: str, material: Material, session: Session, seen: list[Progress], tmp_path: Path
) -> None:
    first = run_stage("warm-start", tmp_path, base, material, session)
    seen.clear()
    assert run_stage("warm-start", tmp_path, base, material, session) == first
    assert seen == []


@pytest.mark.parametrize("stage", ["warm-start", "teacher"])
def test_a_run_that_died_after_its_last_step_only_keeps_its_model(
    base: str, material: Material, session: Session, seen: list[Progress], tmp_path: Path, stage: str
) -> None:
    """In the middle of an epoch too, where transformers would do one step more."""
    first = run_stage(stage, tmp_path, base, material, session)
    shutil.rmtree(tmp_path / "model")
    write_run_manifest(tmp_path, msgspec.structs.replace(first, state="running", model_sha256=""))
    seen.clear()
    again = run_stage(stage, tmp_path, base, material, session)
    assert (again.model_sha256, again.steps, seen) == (first.model_sha256, first.steps, [])
