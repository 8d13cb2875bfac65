import sys
from pathlib import Path

import msgspec
import psutil
import pytest

from bench._training_arm import ArmName, ArmSpec, measured_size
from bench._training_turns import Arm, arm_argv, running, take_turns
from bench.training import ARMS
from offline.training.tiny import write_tiny
from schemas.errors import KeenstreamError
from tests.offline.training import world

# An arm without a trainer: it notes when it computes, in a file that both share.
ARM = """
import json, os, sys, time
name, steps, notes = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def note(what):
    with open(notes, "a") as file:
        file.write(f"{name} {what}\\n")
def say(**message):
    print(json.dumps(message), flush=True)
for step in range(steps):
    note("begins")
    time.sleep(0.01)
    note("ends")
    say(type="StepDone", seconds=step + 1.0, tokens=10.0, completion_tokens=5.0, reward_seconds=0.0)
    sys.stdin.readline()
if len(sys.argv) > 4:
    sys.stderr.write("no memory left\\n")
    os.kill(os.getpid(), 9) if sys.argv[4] == "kill" else sys.exit(3)
say(type="ArmDone", peak_gib=1.5, device_peak_gib=0.0, held_out_readers=0, held_out_seconds=0.0)
"""


def command(name: str, steps: int, notes: Path, *more: str) -> list[str]:
    return [sys.executable, "-c", ARM, name, str(steps), str(notes), *more]


def test_arms_change_places_and_never_compute_at_once(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    arms: dict[ArmName, list[str]] = {name: command(name, 4, notes) for name in ARMS}
    told: list[str] = []
    found = take_turns(arms, 3, tmp_path, told.append)
    lines = notes.read_text().splitlines()
    for begun, ended in zip(lines[::2], lines[1::2], strict=True):
        assert begun.split() == [ended.split()[0], "begins"]
        assert ended.endswith(" ends")
    order = ["ours", "plain", "ours", "plain", "plain", "ours", "ours", "plain"]
    assert [line.split()[0] for line in lines[::2]] == order
    assert {name: [step.seconds for step in one.steps] for name, one in found.items()} == {
        "ours": [2.0, 3.0, 4.0],  # the first was the warm-up
        "plain": [2.0, 3.0, 4.0],
    }
    assert found["ours"].done.peak_gib == 1.5
    assert "step 3 of 3: ours 4.00 s, plain 4.00 s" in told


@pytest.mark.parametrize(
    ("steps", "more", "said"),
    [
        (2, (), "before its last step"),  # a gate closed
        (2, ("fail",), "no memory left"),
        (2, ("fail",), "ended with code 3"),
        (2, ("kill",), "where memory ends"),
        (9, (), "more steps than it was asked for"),
    ],
)
def test_an_arm_that_does_not_do_its_steps_is_told_with_its_last_words(
    tmp_path: Path, steps: int, more: tuple[str, ...], said: str
) -> None:
    arms: dict[ArmName, list[str]] = {"ours": command("ours", steps, tmp_path / "notes", *more)}
    with pytest.raises(KeenstreamError, match=said):
        take_turns(arms, 3, tmp_path, lambda sentence: None)
    assert not [child for child in psutil.Process().children() if ARM in child.cmdline()]


def test_an_interrupted_measurement_leaves_no_arm_behind(tmp_path: Path) -> None:
    def interrupt(arm: Arm) -> None:
        arm.step()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), running("ours", command("ours", 9, tmp_path / "n"), tmp_path / "log") as arm:
        interrupt(arm)
    assert not [child for child in psutil.Process().children() if ARM in child.cmdline()]


def test_a_real_arm_speaks_only_in_turns_whatever_its_libraries_print(tmp_path: Path) -> None:
    world.write_tokenizer(tmp_path / "base")
    write_tiny(tmp_path / "base", tmp_path / "base")
    (tmp_path / "prompts.json").write_bytes(msgspec.json.encode([f"News read: storm {n}\n" for n in range(8)]))
    spec = ArmSpec(
        stage="teacher",
        arm="plain",
        folder=str(tmp_path / "run"),
        prompts=str(tmp_path / "prompts.json"),
        examples="",
        home="",
        base=str(tmp_path / "base"),
        teacher="",
        size=measured_size("tiny", 1),
        device="cpu",
    )
    found = take_turns({"plain": arm_argv(spec, tmp_path)}, 1, tmp_path, lambda sentence: None)
    (step,) = found["plain"].steps
    assert step.seconds > 0
    assert step.tokens > 8 * step.completion_tokens > 0
    assert 0.1 < found["plain"].done.peak_gib < psutil.virtual_memory().total / 2**30
    assert "'loss'" in (tmp_path / "plain.log").read_text()  # trl prints what it logs
