"""The command line as a whole: quick to start, and quiet when it is interrupted."""

import subprocess
import sys

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


def test_ctrl_c_during_the_imports_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> typer.Typer:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        main(interrupted)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "Interrupted.\n"
