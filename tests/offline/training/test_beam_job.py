"""Training inside Beam, with the process that trains replaced by a cheap one through the job's own interpreter call."""

import sys
from pathlib import Path

import apache_beam as beam
import msgspec
import pytest

from offline.training.beam_job import LOG, TrainRuns, launch
from offline.training.job import TrainingJob, main, sized
from offline.training.manifest import RunManifest, write_run_manifest
from schemas.errors import KeenstreamError, UsageError


def job(folder: Path, **changes: object) -> TrainingJob:
    made = TrainingJob(kind="teacher", folder=str(folder), examples=str(folder / "none"), home=str(folder), size="tiny")
    return msgspec.structs.replace(made, **changes)


def finished(folder: Path) -> list[str]:
    """A program that does what a run does: nothing when it is done, else its manifest."""
    manifest = RunManifest(kind="teacher", size="tiny", settings={}, data_sha256="", base="", state="done", steps=3)
    folder.mkdir(exist_ok=True)
    write_run_manifest(folder, manifest)
    return [sys.executable, "-c", "import sys; sys.stderr.write('trained\\n')"]


def test_a_job_of_a_wrong_setting_tells_the_end_of_its_log(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "import sys; sys.stderr.write('no embedder'); sys.exit(2)"]
    with pytest.raises(UsageError, match=r"ended with 2; .*no embedder"):
        launch(job(tmp_path), program)
    assert (tmp_path / LOG).read_text() == "no embedder"


def test_a_process_that_dies_is_a_failure_that_names_its_log(tmp_path: Path) -> None:
    with pytest.raises(KeenstreamError, match=r"ended with -9; the end of .*job.log"):
        launch(job(tmp_path), program=[sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])


def test_each_run_is_launched_once_however_often_it_is_asked_for(tmp_path: Path) -> None:
    jobs = [job(tmp_path / "a"), job(tmp_path / "a"), job(tmp_path / "b")]
    program = finished(tmp_path / "a")
    finished(tmp_path / "b")
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        runs = pipeline | beam.Create(jobs) | TrainRuns(program=tuple(program))
        runs | beam.Map(lambda run: run.steps) | beam.combiners.Count.PerElement() | beam.Map(seen)
    assert [(tmp_path / name / LOG).read_text() for name in ("a", "b")] == ["trained\n", "trained\n"]


def seen(counted: tuple[int, int]) -> None:
    assert counted == (3, 2)


def test_two_different_jobs_of_one_folder_are_refused(tmp_path: Path) -> None:
    jobs = [job(tmp_path), job(tmp_path, steps=9)]
    with (
        pytest.raises(Exception, match="2 different jobs want to train"),
        beam.Pipeline(runner="FnApiRunner") as pipeline,
    ):
        pipeline | beam.Create(jobs) | TrainRuns()


@pytest.mark.parametrize(("changes", "code"), [({"device": "tpu"}, 2), ({"size": "huge"}, 2), ({}, 2)])
def test_the_process_ends_with_the_code_of_the_command_line(
    tmp_path: Path, changes: dict[str, object], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "job.json"
    path.write_bytes(msgspec.json.encode(job(tmp_path, **changes)))
    assert main(str(path)) == code
    assert capsys.readouterr().err


def test_a_job_changes_the_last_stage_of_its_kind_only(tmp_path: Path) -> None:
    teacher = sized(job(tmp_path, steps=9, reward_weights={"align": 0.0}))
    assert (teacher.teacher.steps, teacher.teacher.reward_weights) == (9, {"align": 0.0})
    student = sized(job(tmp_path, kind="student", steps=9, layers=3))
    assert (student.student.steps, student.student.layers) == (9, 3)
    assert student.warm_start == teacher.warm_start
    warm = sized(job(tmp_path, kind="warm-start", steps=9, learning_rate=1e-3)).warm_start
    assert (warm.steps, warm.learning_rate) == (9, 1e-3)


def test_a_seed_is_that_of_every_stage(tmp_path: Path) -> None:
    size = sized(job(tmp_path, seed=11))
    stages = (size.warm_start, size.teacher, size.student, size.student.warm_start)
    assert {stage.seed for stage in stages} == {11}
    assert sized(job(tmp_path)).teacher.seed != 11
