"""A Ctrl-C during `keenstream experiment`: one line, exit code 130, and nothing half-written."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.keenstream.commands.test_experiment import sound
from tests.offline.experiments.log_folders import write_log
from tests.offline.experiments.test_definition import SOUND

SECONDS = 60.0


def reading(process: psutil.Process, out: Path) -> bool:
    """The job's folder is there."""
    return any(out.glob("_scratch-*"))


def within_a_step(process: psutil.Process, out: Path) -> bool:
    """Some of the log is read."""
    return any(out.glob("_scratch-*/splits/*.arrow"))


def two_workers(process: psutil.Process, out: Path) -> bool:
    return sum("offline.beam_worker" in " ".join(child.cmdline()) for child in process.children()) == 2


@pytest.mark.parametrize(
    ("workers", "begun"),
    [(1, reading), (1, within_a_step), (2, two_workers)],
    ids=["one process", "within a step", "two workers"],
)
def test_a_ctrl_c_is_one_line_and_leaves_nothing(
    tmp_path: Path, workers: int, begun: Callable[[psutil.Process, Path], bool]
) -> None:
    config, out = tmp_path / "analysis.toml", tmp_path / "out"
    config.write_text(SOUND.replace("window_days = 7.0", "window_days = 1.0\n"))
    log = write_log(tmp_path / "log", sound())
    command = ["experiment", "analyse", config, "--log", log, "--out", out, "--workers", workers]
    process = subprocess.Popen(
        [sys.executable, "-m", "keenstream.cli", *map(str, command)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal sends it to all processes of the command
    )
    seen = psutil.Process(process.pid)
    until = time.monotonic() + SECONDS
    while not begun(seen, out):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=SECONDS)
    assert said.split() == ["Interrupted."]
    assert process.returncode == 130
    assert list(out.iterdir()) == []
