"""Running Beam: what an unknown runner says, and a Ctrl-C within a step."""

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import pytest

from offline.runners import RunnerSettings, run_beam
from schemas.errors import UsageError

WAIT_SECONDS = 60.0
begun, let_go, ended = threading.Event(), threading.Event(), threading.Event()


def holding(element: int) -> int:
    """A step that is at it until it is let go, as if in a library that swallows interrupts."""
    begun.set()
    try:
        while not let_go.wait(0.01):
            pass
    except KeyboardInterrupt:
        let_go.wait(WAIT_SECONDS)
    ended.set()
    return element


@pytest.fixture
def quiet_beam() -> Iterator[None]:
    """What an abandoned job changes, as it was."""
    logger, tell = logging.getLogger("apache_beam"), threading.excepthook
    level = logger.level
    yield
    let_go.set()
    assert ended.wait(WAIT_SECONDS)
    logger.setLevel(level)
    threading.excepthook = tell


def interrupt_once_begun() -> None:
    if begun.wait(WAIT_SECONDS):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_ctrl_c_within_a_step_ends_the_wait(
    quiet_beam: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    threading.Thread(target=interrupt_once_begun, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_beam(lambda pipeline: pipeline | beam.Create([1]) | beam.Map(holding), RunnerSettings())
    assert begun.is_set()
    assert not ended.is_set()
    assert sorted(tmp_path.glob("beam-*")) == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


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
