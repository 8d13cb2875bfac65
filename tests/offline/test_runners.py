"""Running Beam: what an unknown runner says, what workers do not say, and a Ctrl-C within a step."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import apache_beam as beam
import pytest

from offline.runners import RunnerSettings, run_beam
from schemas.errors import UsageError
from tests.offline import interrupted_job

WAIT_SECONDS = 60.0


def test_a_ctrl_c_within_a_step_ends_the_wait(tmp_path: Path) -> None:
    """In a process of its own: where OpenVINO uses AMX, it gives the thread that opens a model a stack for signals, and
    unmaps it when another thread closes the model. From then on a signal ends the tests' process by SIGSEGV.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", interrupted_job.__name__],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        assert process.stdout.readline().strip() == interrupted_job.BEGUN
        process.send_signal(signal.SIGINT)
        told, failures = process.communicate(timeout=WAIT_SECONDS)
    finally:
        process.kill()
    assert told.strip() == interrupted_job.ENDED
    assert "Traceback" not in failures
    assert list(tmp_path.iterdir()) == []


def test_workers_do_not_warn_of_what_nothing_needs(caplog: pytest.LogCaptureFixture) -> None:
    run_beam(lambda pipeline: pipeline | beam.Create([1]) | beam.Map(str), RunnerSettings(workers=2))
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def failing(element: int) -> int:
    raise ValueError(f"not {element}")


def test_a_step_that_fails_is_told() -> None:
    with pytest.raises(ValueError, match="not 1"):
        run_beam(lambda pipeline: pipeline | beam.Create([1]) | beam.Map(failing), RunnerSettings())


def test_a_runner_that_beam_does_not_know() -> None:
    with pytest.raises(UsageError, match="--runner Nobody"):
        run_beam(lambda pipeline: pipeline | beam.Create([1]), RunnerSettings(runner="Nobody"))
