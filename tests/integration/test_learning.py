"""`tiny` from a simulated log to a served student, by the commands that a user types."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from keenstream.stack.folders import state_folder
from offline.release.folders import link_files
from offline.release.models import ModelPaths, build_models

Home = dict[str, str]  # the environment of a home of its own


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("learning")


@pytest.fixture(scope="module")
def home(folder: Path) -> Home:
    """The real embedder and repository; what is trained and released goes elsewhere."""
    built = build_models(state_folder(), progress=lambda step: None)
    own = ModelPaths.below(folder / "home")
    for name in ("embedder", "repository"):
        link_files(getattr(built, name), getattr(own, name))
    compiled = {
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
    }  # once, for all commands
    return {**os.environ, **compiled, "KEENSTREAM_HOME": str(folder / "home"), "COLUMNS": "160"}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "keenstream.cli", *arguments]


def keenstream(folder: Path, home: Home, *arguments: str, code: int = 0) -> str:
    """Standard output; its standard error is shown when the exit code is another."""
    done = subprocess.run(command(*arguments), cwd=folder, env=home, capture_output=True, text=True, timeout=900)
    assert done.returncode == code, done.stderr[-3_000:]
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


def printed(folder: Path, home: Home, *arguments: str) -> Any:
    return json.loads(keenstream(folder, home, *arguments, "--json"))


def test_tiny_learns_from_a_log_and_is_evaluated_released_and_served(folder: Path, home: Home) -> None:
    world = ("--readers", "300", "--days", "8", "--generated", "600", "--events-per-reader", "20")
    keenstream(folder, home, "simulate", "world", *world)
    examples = printed(folder, home, "train", "prepare", "world", "--out", "examples")
    assert examples["splits"]["training"]["with_clicks"] > 50

    cleaner = printed(folder, home, "train", "cleaner", "world", "--out", "cleaner", "--steps", "8")
    assert (cleaner["run"]["state"], cleaner["run"]["steps"]) == ("done", 8)
    recall = {row["system"]: row["recall"]["value"] for row in cleaner["scores"] if row["texts"] == "all"}
    assert 0 < recall["rules"] <= recall["rules + cleaner"]  # noise of readers nobody trained on

    interrupted_once(folder, home, "train", "teacher", "examples", "--out", "teacher", "--size", "tiny")
    teacher = printed(folder, home, "train", "teacher", "examples", "--out", "teacher", "--size", "tiny")
    assert (teacher["kind"], teacher["state"], teacher["steps"]) == ("teacher", "done", 4)
    assert reward_of(folder / "teacher") > 0.5  # of five: lists are written that parse

    taught = ("train", "student", "examples", "--out", "student", "--teacher", "teacher", "--size", "tiny")
    student = printed(folder, home, *taught)
    assert (student["state"], student["method"], student["steps"]) == ("done", "on-policy", 4)

    models = ("--model", "teacher=teacher/model", "--model", "student=student/model", "--no-sequences", "--seeds", "1")
    report = printed(folder, home, "evaluate", "examples", *models, "--out", "report")
    answered = {row["policy"]: row["answered"] for row in report["rows"] if row["group"] == "all"}
    assert min(answered["teacher"], answered["student"]) > 0.5
    assert (folder / "report" / "evaluation.json").is_file()

    judged = ("--examples", "examples", "--lists", "40", "--precision", "f32", "--overlap", "0.3")
    release = printed(folder, home, "models", "release", "student", *judged)
    assert (release["number"], release["layers"], release["agreement"]["lists"]) == (1, 2, 40)
    assert release["agreement"]["valid"] > 0.5
    served_only_if_worth_it(folder, home, release["scores"])


def interrupted_once(folder: Path, home: Home, *arguments: str) -> None:
    """Ctrl-C in the middle of the warm start: one word, code 130, and a run that says it is not finished."""
    curves = folder / "teacher" / "warm-start" / "curves.jsonl"
    process = subprocess.Popen(command(*arguments), cwd=folder, env=home, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 600
    while (
        process.poll() is None and time.monotonic() < until and not (curves.exists() and '"loss"' in curves.read_text())
    ):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert told.rstrip().endswith("Interrupted.")
    assert "Traceback" not in told
    unfinished = keenstream(folder, home, "models", "release", "teacher/warm-start", "--examples", "examples", code=2)
    assert "repeat its command, it resumes" in unfinished


def reward_of(run: Path) -> float:
    rewards = [row["reward"] for row in map(json.loads, (run / "curves.jsonl").open()) if "reward" in row]
    return float(sum(rewards) / len(rewards))


def served_only_if_worth_it(folder: Path, home: Home, scores: dict[str, float]) -> None:
    if scores["held_out"] <= scores["signals_recall_at_10"]:  # what a minute of training gives
        assert "it earns nothing" in keenstream(folder, home, "models", "promote", "1", "--no-load", code=2)
    promoted = printed(folder, home, "models", "promote", "1", "--force", "--no-load")
    assert promoted["model_version"] == "keenstream-student-1"
    assert (folder / "home" / "models" / "repository" / "student" / str(promoted["version"])).is_dir()
    assert "is served again, from Triton's next start on" in keenstream(folder, home, "models", "rollback", "--no-load")
    assert not (folder / "home" / "models" / "repository" / "student" / str(promoted["version"])).exists()
