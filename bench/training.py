"""What training costs: the teacher's and the student's steps beside plain TRL's, with the same model and settings.

    keenstream bench training --size laptop --steps 4

GRPO as the teacher's stage runs it (our rewards on a real index, curves, gates) beside TRL's GRPOTrainer with a reward
that costs nothing; on-policy distillation as the student's stage runs it beside TRL's DistillationTrainer. Each arm is
a process of its own, so that its peak of memory is its own; the two of a stage take turns, step by step, on the same
prompts, and write the same number of tokens (nothing may end a list early), or there is no result. The one that waits
keeps its memory. A step is all of the time between two turns. Not in it, in either arm: checkpoints, and the held-out
measure, which plain TRL does not have and whose cost is told apart.
"""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import msgspec
import psutil
import typer
from rich.console import Console
from rich.table import Table

from bench._machine import Machine, this_machine
from bench._spread import Spread
from bench._training_arm import ArmName, ArmSpec, StageName, measured_size
from bench._training_turns import Measured, arm_argv, take_turns
from keenstream.stack.folders import state_folder
from offline.release.models import ModelPaths
from offline.runners import RunnerSettings
from offline.simulate import SimulationSettings, write_simulation
from offline.training.bases import ensure_base, load_base, save_model
from offline.training.example_set import load_split
from offline.training.loading import as_reader
from offline.training.material import prompts_of
from offline.training.preparation import PrepareSettings, prepare_examples
from offline.training.pruning import prune_blocks
from offline.training.sizes import Size, size_of
from offline.training.trainer_arguments import check_device, quiet_libraries
from schemas.errors import KeenstreamError, UsageError

SIZES = ("tiny", "laptop")
WORLD = SimulationSettings(readers=300, articles=1_000, days=8.0, events_per_reader=20.0)
STAGES: dict[StageName, str] = {"teacher": "GRPO", "student": "on-policy distillation"}
ARMS: tuple[ArmName, ...] = ("ours", "plain")
REWARDS_WANTED = 0.05  # of a step, at most
# GiB of both arms together: those of GRPO at `laptop` reached 7.7 and 6.3
NEEDED_GIB = {"tiny": 3.0, "laptop": 16.0}

console = Console(highlight=False, stderr=True)
output = Console(highlight=False)


class ArmFigures(msgspec.Struct, frozen=True, kw_only=True):
    step_seconds: Spread
    tokens_per_second: Spread  # of prompts and completions
    peak_gib: float  # of the process, from its start to the end of training
    device_peak_gib: float  # of a GPU's memory


class HeldOut(msgspec.Struct, frozen=True, kw_only=True):
    """The measure that guards a run of this size on these examples, beside its steps."""

    readers: int
    seconds: float  # for all of them
    every: int  # steps
    step_share: float  # seconds per step, beside those of a step


class StageFigures(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    ours: ArmFigures
    plain: ArmFigures
    ratio: Spread  # of our seconds to plain TRL's, step by step
    tokens_per_step: float
    completion_tokens: float  # of each list
    rewards_share: Spread | None  # of our step; None where nothing is rewarded
    held_out: HeldOut


class TrainingReport(msgspec.Struct, frozen=True, kw_only=True):
    machine: Machine
    device: str
    size: str
    steps: int
    prompts: int
    stages: tuple[StageFigures, ...]


def main(
    size: Annotated[str, typer.Option(help="tiny | laptop")] = "tiny",
    steps: Annotated[int, typer.Option(min=1, help="Measured steps of each arm, after one to warm up.")] = 4,
    examples: Annotated[
        Path | None, typer.Option(help="What `keenstream train prepare` wrote; default: a small simulated log's.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu | cuda")] = "cpu",
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file too.")] = None,
) -> None:
    """Measure training. Example: `keenstream bench training --size laptop --steps 4`"""
    if size not in SIZES:
        raise UsageError(f"--size is one of {', '.join(SIZES)}, not {size!r}")
    check_device(device)
    if device == "cpu":
        check_memory(size, psutil.virtual_memory().available / 2**30)
    with TemporaryDirectory(prefix="keenstream-bench-training-") as scratch:
        report = measure(Path(scratch), size, steps, examples, device)
    if json:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))


def check_memory(size: str, free_gib: float) -> None:
    """UsageError when so little is free that the kernel would end an arm, or another's process in its place."""
    if free_gib < (needed := NEEDED_GIB[size]):
        raise UsageError(
            f"--size {size}: both arms together take up to {needed:.0f} GiB of memory and {free_gib:.1f} are free: end "
            "what takes it, or measure a smaller size"
        )


def measure(scratch: Path, size: str, steps: int, examples: Path | None, device: str) -> TrainingReport:
    """Both stages, one after the other."""
    quiet_libraries()
    if not ModelPaths.below(state_folder()).embedder.exists():
        raise UsageError("the rewards need the embedder: run `keenstream models build`")
    folder = examples or simulated_examples(scratch)
    prompts = write_prompts(folder, scratch / "prompts.json", size_of(size))
    console.print("making the models")
    specs = arm_specs(scratch, folder, measured_size(size, steps), device)
    report = TrainingReport(machine=this_machine(), device=device, size=size, steps=steps, prompts=prompts, stages=())
    for stage in STAGES:
        figures = _stage(scratch, stage, specs, steps)
        show(report, figures)
        report = msgspec.structs.replace(report, stages=(*report.stages, figures))
    return report


def show(report: TrainingReport, figures: StageFigures) -> None:
    """As soon as it is measured: the next stage may take long."""
    output.print(table(report, figures))
    for sentence in verdicts(figures):
        output.print(sentence)


def simulated_examples(scratch: Path) -> Path:
    console.print("simulating readers and preparing their examples")
    world, out = scratch / "world", scratch / "examples"
    write_simulation(world, WORLD)
    prepare_examples(world, out, PrepareSettings(), RunnerSettings(), lambda step, done, total: None)
    return out


def write_prompts(examples: Path, path: Path, size: Size) -> int:
    """Those that our arm makes of the training readers, for the arm that knows no readers; gives how many.

    Raises UsageError when they do not fill a step.
    """
    prompts = prompts_of([as_reader(row) for row in load_split(examples, "training") if row.clicked])
    if len(prompts) < (least := max(size.teacher.groups, size.student.batch)):
        raise UsageError(
            f"{examples} has {len(prompts)} training readers with clicks, and a step {least}: prepare more"
        )
    path.write_bytes(msgspec.json.encode(prompts))
    return len(prompts)


def arm_specs(scratch: Path, examples: Path, size: Size, device: str) -> list[ArmSpec]:
    """Of all arms; the models that they load are written below `scratch`."""
    teacher, student = write_models(scratch / "models", ensure_base(size.base, state_folder()), size)
    return [
        ArmSpec(
            stage=stage,
            arm=arm,
            folder=str(scratch / f"{stage}-{arm}"),
            prompts=str(scratch / "prompts.json"),
            examples=str(examples),
            home=str(state_folder()),
            base=str(teacher if stage == "teacher" else student),
            teacher=str(teacher),
            size=size,
            device=device,
        )
        for stage in STAGES
        for arm in ARMS
    ]


def write_models(folder: Path, base: str, size: Size) -> tuple[Path, Path]:
    """The base's first blocks as a teacher, fewer as a student: which ones does not change the time.

    Both say of themselves that a list may not end before the longest allowed: so all arms write the same number of
    tokens, whatever they have learnt, and no trainer is told anything that a run would not tell it.
    """
    loaded = load_base(base)
    if size.layers:
        loaded = loaded._replace(model=prune_blocks(loaded.model, range(size.layers)))
    loaded.model.generation_config.min_new_tokens = size.teacher.max_new_tokens
    save_model(loaded, folder / "teacher")
    blocks = range(size.student.layers)
    small = loaded._replace(model=prune_blocks(loaded.model, blocks))
    small.model.generation_config.min_new_tokens = size.student.max_new_tokens
    save_model(small, folder / "student")
    return folder / "teacher", folder / "student"


def _stage(scratch: Path, stage: StageName, specs: Sequence[ArmSpec], steps: int) -> StageFigures:
    name = STAGES[stage]
    commands = {spec.arm: arm_argv(spec, scratch) for spec in specs if spec.stage == stage}
    (scratch / stage).mkdir()
    measured = take_turns(commands, steps, scratch / stage, lambda told: console.print(f"{name}, {told}"))
    size = size_of(specs[0].size.name)  # as it is trained with
    settings = size.teacher if stage == "teacher" else size.student
    return stage_figures(name, measured["ours"], measured["plain"], held_out_every=settings.held_out_every)


def stage_figures(name: str, ours: Measured, plain: Measured, *, held_out_every: int) -> StageFigures:
    """KeenstreamError when the arms did not do the same work."""
    for mine, theirs in zip(ours.steps, plain.steps, strict=True):
        if (mine.tokens, mine.completion_tokens) != (theirs.tokens, theirs.completion_tokens):
            raise KeenstreamError(
                f"{name}: in a step ours had {mine.tokens:.0f} tokens ({mine.completion_tokens:.1f} in a list), plain "
                f"TRL {theirs.tokens:.0f} ({theirs.completion_tokens:.1f}): their times cannot be compared"
            )
    shares = [step.reward_seconds / step.seconds for step in ours.steps]
    figures = arm_figures(ours)
    seconds = ours.done.held_out_readers * ours.done.held_out_seconds
    return StageFigures(
        name=name,
        ours=figures,
        plain=arm_figures(plain),
        ratio=Spread.of([a.seconds / b.seconds for a, b in zip(ours.steps, plain.steps, strict=True)]),
        tokens_per_step=statistics.fmean(step.tokens for step in ours.steps),
        completion_tokens=statistics.fmean(step.completion_tokens for step in ours.steps),
        rewards_share=Spread.of(shares) if any(shares) else None,
        held_out=HeldOut(
            readers=ours.done.held_out_readers,
            seconds=seconds,
            every=held_out_every,
            step_share=seconds / held_out_every / figures.step_seconds.median,
        ),
    )


def arm_figures(measured: Measured) -> ArmFigures:
    return ArmFigures(
        step_seconds=Spread.of([step.seconds for step in measured.steps]),
        tokens_per_second=Spread.of([step.tokens / step.seconds for step in measured.steps]),
        peak_gib=measured.done.peak_gib,
        device_peak_gib=measured.done.device_peak_gib,
    )


def table(report: TrainingReport, stage: StageFigures) -> Table:
    title = f"{stage.name}, {report.size}, {report.device}, median (min–max) of {report.steps} steps"
    shown = Table("", "s/step", "tokens/s", "peak memory, GiB", title=title)
    for arm, figures in (("ours", stage.ours), ("plain TRL", stage.plain)):
        peak = f"{figures.peak_gib:.2f}"
        if report.device == "cuda":
            peak += f", on the GPU {figures.device_peak_gib:.2f}"
        shown.add_row(arm, str(figures.step_seconds), str(figures.tokens_per_second), peak)
    shown.add_row("ours / plain TRL", str(stage.ratio), "", f"{stage.ours.peak_gib / stage.plain.peak_gib:.2f}")
    return shown


def verdicts(stage: StageFigures) -> Iterator[str]:
    yield (
        f"{stage.tokens_per_step:,.0f} tokens in a step, {stage.completion_tokens:.0f} in each list; ours takes "
        f"{stage.ratio.median:.3f} times as long as plain TRL"
    )
    if share := stage.rewards_share:
        yield (
            f"the rewards take {share.median:.1%} of a step ({share.lowest:.1%}–{share.highest:.1%}; wanted: under "
            f"{REWARDS_WANTED:.0%})"
        )
    held = stage.held_out
    yield (
        f"beside the steps, the held-out measure of {held.readers} readers takes {held.seconds:.3g} s every "
        f"{held.every} steps, which adds {held.step_share:.1%}"
    )


if __name__ == "__main__":
    typer.run(main)
