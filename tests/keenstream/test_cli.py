"""The command line as a whole: quick to start, and quiet when it is interrupted."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
import typer

from keenstream.cli import main

HEAVY = {"kafka", "aiokafka", "faust", "pymilvus", "tritonclient", "torch", "transformers", "apache_beam", "numpy"}


def test_commands_load_what_is_heavy_only_when_they_run() -> None:
    program = (
        "import sys; from keenstream.commands import application; application(); print(*{m.split('.')[0] for m in "
        "sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "typer" in done.stdout.split()
    assert HEAVY & set(done.stdout.split()) == set()


def application_that(run: Callable[[], None]) -> typer.Typer:
    app = typer.Typer()
    app.command()(run)
    return app


def interrupted() -> None:
    raise KeyboardInterrupt


def interrupted_imports() -> typer.Typer:
    raise KeyboardInterrupt


@pytest.mark.parametrize("build", [interrupted_imports, lambda: application_that(interrupted)], ids=["imports", "run"])
def test_ctrl_c_is_told_in_one_word(
    build: Callable[[], typer.Typer], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["keenstream"])
    with pytest.raises(SystemExit) as ended:
        main(build)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_ctrl_c_does_not_wait_for_threads_that_cannot_be_stopped() -> None:
    program = (
        "import threading, typer; from keenstream.cli import main\n"
        "def run():\n"
        "    threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "    print('half')\n"
        "    raise KeyboardInterrupt\n"
        "import atexit; atexit.register(print, 'the interpreter ended in its own time')\n"
        "app = typer.Typer(); app.command()(run)\n"
        "main(lambda: app)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "half\n", "Interrupted.\n")


def without_room() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "report/table")


def without_room_in_a_library() -> None:
    raise RuntimeError("I/O error: No space left on device (os error 28)")


def broken() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("run", "disk"), [(without_room, "report/table"), (without_room_in_a_library, r"the output \(or of .*\)")]
)
def test_a_full_disk_is_told_in_a_sentence(
    run: Callable[[], None], disk: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["keenstream"])
    with pytest.raises(SystemExit) as ended:
        main(lambda: application_that(run))
    assert ended.value.code == 1
    told = rf"Failed: the disk of {disk} is full \(No space left on device\): free some room and repeat the command\n"
    assert re.fullmatch(told, capsys.readouterr().err)


def test_other_errors_keep_their_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["keenstream"])
    with pytest.raises(ZeroDivisionError):
        main(lambda: application_that(broken))
