"""The command line without servers: usage, exit codes, errors that say what to do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from keenstream.commands import application

APP = application()
COMMANDS = ["demo", "prepare", "worker", "send", "ingest", "show", "erase", "simulate", "bench", "doctor"]
GROUPED = [
    ("stack", "up"), ("stack", "status"), ("stack", "down"),
    ("dead-letters", "list"), ("dead-letters", "show"), ("dead-letters", "replay"),
    ("models", "build"), ("models", "list"), ("models", "export"), ("api-key", "create"),
    ("experiment", "analyse"), ("experiment", "power"), ("experiment", "offpolicy"),
]  # fmt: skip


def run(*arguments: str, home: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "keenstream.cli", *arguments],
        env={**os.environ, "KEENSTREAM_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("command", [*((name,) for name in COMMANDS), *GROUPED])
def test_every_command_has_help_with_an_example(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(APP, [*command, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert f"keenstream {' '.join(command)}" in result.output.split("Usage", 1)[1].split("\n", 1)[1]


def test_importing_the_command_line_is_light() -> None:
    code = "import sys, keenstream.commands as c; c.application(); print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", f"import json; {code}"], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "faust", "openvino", "pymilvus", "sklearn", "matplotlib"}
    assert heavy & set(json.loads(done.stdout)) == set()


def test_no_command_shows_the_commands() -> None:
    assert "demo" in CliRunner().invoke(APP, []).output


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("nonsense",), 2, "No such command"),
        (("worker", "nonsense"), 2, "there are: profiles, signals"),
        (("bench", "nonsense"), 2, "there is no benchmark nonsense; there are: api, "),
        (("ingest", "feed.jsonl", "--expire-from", "never"), 2, "publication"),
        (("demo", "--articles", "nowhere.jsonl"), 2, "there is no file nowhere.jsonl"),
        (("show", "ann"), 1, "start it with `keenstream worker api`"),
        (("dead-letters", "list"), 1, "keenstream stack up"),
        (("dead-letters", "replay", "--reason", "(", "--dry-run"), 2, "--reason"),
        (("dead-letters", "list", "--since", "yesterday"), 2, "--since"),
        (("erase", "ann"), 2, "--yes"),
        (("erase", "ann", "--yes", "--before", "soon"), 2, "--before"),
        (("erase", "ann", "--verify", "--before", "2h"), 2, "leave out --before"),
        (("worker", "profiles"), 1, "127.0.0.1:1"),
    ],
)
def test_what_goes_wrong_is_said_with_what_to_do(
    tmp_path: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    away = {"KEENSTREAM_KAFKA_BOOTSTRAP": "127.0.0.1:1", "KEENSTREAM_API_PORT": "1"}
    done = run(*arguments, home=tmp_path, **away)
    assert done.returncode == code, done.stderr
    assert says in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stderr


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    done = run("prepare", home=tmp_path, KEENSTREAM_KAFKA_PARTITIONS="many")
    assert done.returncode == 2
    assert "partitions" in done.stderr


def test_simulate_repeats_itself_byte_for_byte(tmp_path: Path) -> None:
    for name in ("first", "second"):
        done = run("simulate", str(tmp_path / name), "--readers", "5", "--generated", "200", "--json", home=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["events"] > 0
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert "truth.jsonl" in files
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_the_application_is_what_the_script_runs() -> None:
    assert isinstance(APP, typer.Typer)
