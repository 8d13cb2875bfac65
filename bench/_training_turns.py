"""The arms of `keenstream bench training` from outside: started one after the other, then given turns, step by step.

Only one of them computes at a time and they change places with each step, so that a slower spell of the machine meets
both.
"""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import msgspec

from bench._training_arm import ArmDone, ArmName, ArmSpec, Message, StepDone
from keenstream.stack.process import Command, full_argv, last_lines
from schemas.errors import KeenstreamError

Tell = Callable[[str], None]


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What one arm told: its steps after the warm-up, and its end."""

    steps: list[StepDone]
    done: ArmDone


class Arm:
    """A running arm."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.name, self._process, self._log = name, process, log

    def step(self) -> StepDone:
        """Its next step; KeenstreamError where it has none."""
        message = self._read()
        if not isinstance(message, StepDone):
            raise self._failed("ended before its last step")
        return message

    def go_on(self) -> None:
        """Let it begin what follows the step that it told of."""
        try:
            _pipe(self._process.stdin).write(b"\n")
            _pipe(self._process.stdin).flush()
        except BrokenPipeError:
            raise self._failed("ended between two steps") from None

    def end(self) -> ArmDone:
        """What it tells after its last step."""
        message = self._read()
        if not isinstance(message, ArmDone):
            raise self._failed("did more steps than it was asked for")
        return message

    def _read(self) -> Message:
        line = _pipe(self._process.stdout).readline()
        if not line:
            code = self._process.wait()
            killed = code == -signal.SIGKILL
            raise self._failed("was killed, as happens where memory ends" if killed else f"ended with code {code}")
        message: Message = msgspec.json.decode(line, type=Message)
        return message

    def _failed(self, what: str) -> KeenstreamError:
        return KeenstreamError(f"{self.name} {what}:\n{last_lines(self._log)}")


@contextmanager
def running(name: str, argv: Sequence[str], log: Path) -> Iterator[Arm]:
    """The arm for the length of a `with`: killed at the end, however that comes, and by the kernel if we are."""
    with log.open("wb") as written:
        process = subprocess.Popen(
            full_argv(Command(argv=tuple(argv))),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=written,
            start_new_session=True,  # Ctrl-C reaches only us: an arm would end its step and write a checkpoint first
        )
    try:
        yield Arm(name, process, log)
    finally:
        process.kill()
        process.communicate()


def arm_argv(spec: ArmSpec, folder: Path) -> list[str]:
    """The command of an arm's process; its settings are written into `folder`."""
    path = folder / f"{spec.stage}-{spec.arm}.json"
    path.write_bytes(msgspec.json.encode(spec))
    return [sys.executable, "-m", "bench._training_arm", str(path)]


def take_turns(
    commands: Mapping[ArmName, Sequence[str]], steps: int, logs: Path, tell: Tell
) -> dict[ArmName, Measured]:
    """Each arm's warm-up step, then `steps` of each in turns, then each to its end."""
    with ExitStack() as alive:
        arms: dict[ArmName, Arm] = {}
        for name, argv in commands.items():
            tell(f"{name}: loading, and a step to warm up")
            arms[name] = alive.enter_context(running(name, argv, logs / f"{name}.log"))
            arms[name].step()
        found: dict[ArmName, list[StepDone]] = {name: [] for name in arms}
        for number in range(steps):
            for name in list(arms) if number % 2 == 0 else reversed(arms):
                arms[name].go_on()
                found[name].append(arms[name].step())
            spent = ", ".join(f"{name} {done[-1].seconds:.2f} s" for name, done in found.items())
            tell(f"step {number + 1} of {steps}: {spent}")  # at laptop's size that may be minutes
        return {name: Measured(steps=found[name], done=_ended(arm)) for name, arm in arms.items()}


def _ended(arm: Arm) -> ArmDone:
    arm.go_on()
    return arm.end()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ValueError("the process was started without pipes")
    return stream
