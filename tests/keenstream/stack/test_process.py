import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from keenstream.stack.process import Command, end, group_members, run_once, start, wait_ready
from schemas.errors import Unavailable
from tests.keenstream.stack.programs import PARENT, SLEEPER, STUBBORN, eventually, first_line, gone


def test_ending_a_group_ends_the_grandchildren_too(tmp_path: Path) -> None:
    process = start(Command(argv=PARENT), tmp_path / "log")
    grandchild = int(first_line(tmp_path / "log"))
    assert grandchild in {member.pid for member in group_members(process.pid)}
    end(process, grace_seconds=5)
    assert gone(process.pid)
    assert gone(grandchild)


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    process = start(Command(argv=STUBBORN), tmp_path / "log")
    first_line(tmp_path / "log")
    began = time.monotonic()
    end(process, grace_seconds=0.5)
    assert time.monotonic() - began >= 0.5
    assert process.returncode == -9


def test_a_process_yields_to_others_when_asked(tmp_path: Path) -> None:
    process = start(Command(argv=SLEEPER, niceness=10), tmp_path / "log")
    try:
        eventually(lambda: psutil.Process(process.pid).nice() == 10)
    finally:
        end(process, 1)


def test_a_process_dies_with_the_one_that_started_it(tmp_path: Path) -> None:
    starter = (
        "import sys, time; from pathlib import Path; from keenstream.stack.process import Command, start;"
        "print(start(Command(argv=(sys.executable, '-c', 'import time; time.sleep(600)')), Path(sys.argv[1])).pid,"
        " flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", starter, str(tmp_path / "log")], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert not gone(child)
        parent.kill()
    eventually(lambda: gone(child))


def test_a_process_that_ends_while_starting_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    def never() -> None:
        raise ConnectionRefusedError

    process = start(Command(argv=(sys.executable, "-c", "print('no disk'); raise SystemExit(3)")), tmp_path / "log")
    with pytest.raises(Unavailable, match=r"ended with 3 while starting(.|\n)*no disk"):
        wait_ready("broker", process, never, tmp_path / "log", 10)


def test_waiting_for_an_answer_has_an_end(tmp_path: Path) -> None:
    def never() -> None:
        raise ConnectionRefusedError

    process = start(Command(argv=SLEEPER), tmp_path / "log")
    try:
        with pytest.raises(Unavailable, match="did not answer in 0 s"):
            wait_ready("broker", process, never, tmp_path / "log", 0.2)
    finally:
        end(process, 1)


def test_a_missing_program_points_to_the_doctor() -> None:
    with pytest.raises(Unavailable, match="keenstream doctor"):
        run_once(["no-such-program"], "fetching")
