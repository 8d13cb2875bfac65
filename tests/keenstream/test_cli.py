"""The command line as a whole: quick to start, and quiet when it is interrupted."""

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
