"""One arm of `keenstream bench training`, as a process of its own: its memory is the arm's, its steps come in turns.

    python -m bench._training_arm SPEC.json

It writes a line of JSON to standard output for each step, and after each waits for a line on standard input before it
goes on: so two arms never compute at once. What libraries print goes to standard error.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from offline.training.gates import GateSettings
from offline.training.material import Material, held_out_measure
from offline.training.progress import Progress
from offline.training.rewards import Reward, Values
from offline.training.sizes import Size, size_of
from offline.training.stage import Session

WARM_UP = 1  # the first step also allocates and compiles
GUARDS = 2  # held-out readers of the measure before the first step; what a whole one takes is measured apart
MEASURED_LISTS = 32  # held-out lists that are timed, one batch of the writer
OPEN = GateSettings(zero_variance_limit=1.0, clipped_limit=1.0, reward_drop_limit=0.0, held_out_drop=1.0)

StageName = Literal["teacher", "student"]
ArmName = Literal["ours", "plain"]


class ArmSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What an arm trains, and with which settings."""

    stage: StageName
    arm: ArmName
    folder: str  # of its run
    prompts: str  # file of the training readers' prompts, a JSON list
    examples: str
    home: str  # with the embedder
    base: str  # the model that learns
    teacher: str  # the model that teaches a student
    size: Size
    device: str


class StepDone(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    seconds: float
    tokens: float  # of prompts and completions, each as often as it was read
    completion_tokens: float  # mean length of a completion
    reward_seconds: float


class ArmDone(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    peak_gib: float
    device_peak_gib: float  # of a GPU's memory; 0 without one
    held_out_readers: int = 0  # of a whole measure in a run
    held_out_seconds: float = 0.0  # for each of them


Message = StepDone | ArmDone
Turn = Callable[[StepDone], None]  # tells of a step, and returns when the next may begin


def measured_size(name: str, steps: int) -> Size:
    """The size's own settings for `steps` steps after the warm-up, without a checkpoint or a measure between them."""
    size, total = size_of(name), WARM_UP + steps
    apart: dict[str, Any] = {
        "steps": total,
        "checkpoint_every": total,
        "held_out_every": total + 1,
        "gates": OPEN,  # they watch; but lists of one length are cut off, all of them
    }
    return msgspec.structs.replace(
        size,
        teacher=msgspec.structs.replace(size.teacher, **apart),
        student=msgspec.structs.replace(size.student, **apart),
    )


class Meter:
    """Turns what a trainer logs into steps: the time between two turns, the tokens and the rewards' part of it."""

    def __init__(self, turn: Turn, device: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self._turn, self._device, self._clock = turn, device, clock
        self._began, self._tokens, self._rewards = clock(), 0.0, 0.0

    def step(self, measures: Mapping[str, float]) -> None:
        """`measures` are what trl logs after a step; its count of tokens runs from the beginning."""
        if self._device == "cuda":
            import torch

            torch.cuda.synchronize()
        seconds, counted, spent = self._clock() - self._began, measures["num_tokens"], self._rewards
        done = StepDone(
            seconds=seconds,
            tokens=counted - self._tokens,
            completion_tokens=measures["completions/mean_length"],
            reward_seconds=spent,
        )
        self._turn(done)
        self._began, self._tokens, self._rewards = self._clock(), counted, 0.0

    def watch(self, progress: Progress) -> None:
        """The same for a session of a run."""
        self.step(progress.measures)

    def timed(self, reward: Reward) -> Reward:
        """`reward`, its time counted."""

        def scored(**batch: Any) -> Values:
            began = self._clock()
            try:
                return reward(**batch)
            finally:
                self._rewards += self._clock() - began

        return scored


def train_ours(spec: ArmSpec, material: Material, meter: Meter) -> None:
    """The stage as `keenstream train` runs it, rewards, gates, curves and run folder included."""
    from offline.training.student import distil
    from offline.training.teacher import train_teacher

    timed = {name: meter.timed(reward) for name, reward in material.rewards.items()}
    given = msgspec.structs.replace(material, rewards=timed, held_out=material.held_out[:GUARDS])
    session = Session(device=spec.device, watch=meter.watch, tell=_tell, now_ms=int(time.time() * 1000))
    folder = Path(spec.folder)
    if spec.stage == "teacher":
        done = train_teacher(folder, given, spec.size, spec.base, session, warm_start=False)
    else:
        done = distil(folder, given, spec.size, spec.base, Path(spec.teacher), session)
    if done.reason:
        _tell(f"a gate ended the run: {done.reason}")


def train_plain(spec: ArmSpec, meter: Meter) -> None:
    """trl's own trainer with the same settings."""
    from bench._training_plain import plain_distillation, plain_grpo

    prompts = msgspec.json.decode(Path(spec.prompts).read_bytes(), type=list[str])
    if spec.stage == "teacher":
        seen = prompts[: spec.size.teacher.readers]  # ours shuffles as many, no more
        trainer = plain_grpo(spec.base, seen, spec.size.teacher, spec.folder, spec.device)
    else:
        trainer = plain_distillation(spec.base, spec.teacher, prompts, spec.size.student, spec.folder, spec.device)
    trainer.add_callback(_stamping(meter))
    trainer.train()


def held_out_seconds(spec: ArmSpec, material: Material) -> float:
    """For each reader of a held-out measure, writing, search and all."""
    from offline.training.bases import load_base

    settings = spec.size.teacher if spec.stage == "teacher" else spec.size.student
    base, some = load_base(spec.base), material.held_out[:MEASURED_LISTS]
    base.model.to(spec.device)
    measure = held_out_measure(
        msgspec.structs.replace(material, held_out=some), base.tokenizer, settings.max_new_tokens
    )
    began = time.perf_counter()
    measure(base.model)
    return (time.perf_counter() - began) / len(some)


def run_arm(spec: ArmSpec, turn: Turn) -> ArmDone:
    """Train to the end, a turn for each step."""
    from offline.training.trainer_arguments import keep_freed_memory, limit_threads

    if spec.arm != "plain":
        keep_freed_memory()  # as a run does
    limit_threads(spec.size.threads)
    meter = Meter(turn, spec.device)
    if spec.arm == "plain":
        train_plain(spec, meter)
        return ArmDone(peak_gib=peak_gib(), device_peak_gib=_device_peak_gib(spec.device))
    material = _material(spec)
    train_ours(spec, material, meter)
    return ArmDone(
        peak_gib=peak_gib(),  # before what follows
        device_peak_gib=_device_peak_gib(spec.device),
        held_out_readers=len(material.held_out),
        held_out_seconds=held_out_seconds(spec, material),
    )


def _material(spec: ArmSpec) -> Material:
    from offline.evaluate.local_embedder import LocalEmbedder
    from offline.release.models import ModelPaths
    from offline.training.loading import load_material
    from schemas.config import Api

    embedder = LocalEmbedder(ModelPaths.below(Path(spec.home)).embedder)
    return load_material(Path(spec.examples), embedder, Api())


def _stamping(meter: Meter) -> Any:
    from transformers import TrainerCallback

    class Stamping(TrainerCallback):  # type: ignore[misc]  # transformers has no types
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
            if "num_tokens" in logs:  # not in the summary at the end
                meter.step(logs)

    return Stamping()


def peak_gib() -> float:
    """Of this program's memory so far. Linux's `ru_maxrss` may be that of whoever started it: it survives an exec."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**20


def _device_peak_gib(device: str) -> float:
    if device != "cuda":
        return 0.0
    import torch

    return float(torch.cuda.max_memory_allocated()) / 2**30


def _tell(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")


def main(path: str) -> None:
    lines = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def say(message: Message) -> None:
        lines.write(msgspec.json.encode(message) + b"\n")

    def turn(done: StepDone) -> None:
        say(done)
        if not sys.stdin.readline():  # whoever measures is gone
            raise SystemExit(1)

    say(run_arm(msgspec.json.decode(Path(path).read_bytes(), type=ArmSpec), turn))


if __name__ == "__main__":
    main(sys.argv[1])
