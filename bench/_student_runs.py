"""Lists per second of a student's run and of its teacher's, each in plain transformers and in the engine that serves.

The four take turns on the same readers, new ones in each round, because only ratios of one run mean something on a busy
machine. Plain transformers: `generate` on float32 weights in batches; the serving engine: OpenVINO, int8 weights.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from bench._machine import Machine, this_machine
from bench._reader_prompts import reader_profiles
from bench._spread import Spread
from offline.evaluate.prompt_writers import Checkpoint, Engine, prompt_writer
from offline.evaluate.served_prompt import checkpoint_in
from schemas.profile import UserProfile
from schemas.prompt import render_prompt

ENGINES: Final[tuple[Engine, ...]] = ("transformers", "openvino")
Contestant = tuple[str, Engine]  # role (teacher or student) and engine
WriteAll = Callable[[Sequence[UserProfile]], list[str]]

console = Console(highlight=False, stderr=True)
output = Console(highlight=False)


class Speed(Spread, frozen=True, kw_only=True):
    """Lists per second over the rounds."""

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.lowest:.2f}–{self.highest:.2f})"


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """Of a model: what a list of it costs, whatever the machine."""

    folder: str
    blocks: int
    parameters: int


class RunSpeed(msgspec.Struct, frozen=True, kw_only=True):
    role: str
    engine: Engine
    speed: Speed
    words: float  # of a list, mean: shorter lists are quicker ones


class RunsReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured; each ratio is the median of those of the rounds, with the least and the greatest."""

    machine: Machine
    prompts: int
    rounds: int
    max_new_tokens: int
    teacher: Size
    student: Size
    speeds: tuple[RunSpeed, ...]
    served_over_plain_teacher: Speed  # the student in the serving engine / the teacher in transformers
    same_engine: dict[Engine, Speed]  # student / teacher


def measure_runs(
    scratch: Path, teacher: str, student: str, *, prompts: int, rounds: int, max_new_tokens: int
) -> RunsReport:
    """Both runs in both engines. UsageError for a folder without a model."""
    places = {"teacher": checkpoint_in(teacher), "student": checkpoint_in(student)}
    sizes = {role: size_of(folder) for role, (folder, _) in places.items()}
    profiles = reader_profiles(scratch / "world", prompts * (rounds + 1))
    with ExitStack() as loaded:
        writers: dict[Contestant, WriteAll] = {}
        for role, (folder, prompt) in places.items():
            for engine in ENGINES:
                console.print(f"loading the {role} into {engine}")
                model = Checkpoint(folder=folder, prompt=prompt, engine=engine, max_new_tokens=max_new_tokens)
                writers[role, engine] = _writer(model, loaded)
        batches = [profiles[start : start + prompts] for start in range(0, len(profiles), prompts)]
        rates, words = take_turns(writers, batches, time.perf_counter)
    return RunsReport(
        machine=this_machine(),
        prompts=prompts,
        rounds=rounds,
        max_new_tokens=max_new_tokens,
        teacher=sizes["teacher"],
        student=sizes["student"],
        speeds=tuple(
            RunSpeed(role=role, engine=engine, speed=Speed.of(found), words=words[role, engine])
            for (role, engine), found in rates.items()
        ),
        served_over_plain_teacher=_ratio(rates["student", "openvino"], rates["teacher", "transformers"]),
        same_engine={engine: _ratio(rates["student", engine], rates["teacher", engine]) for engine in ENGINES},
    )


def _writer(model: Checkpoint, loaded: ExitStack) -> WriteAll:
    write = loaded.enter_context(prompt_writer(model))
    return lambda profiles: [text for (text,) in write([render_prompt(row, model.prompt) for row in profiles], 1, 0)]


def size_of(folder: str) -> Size:
    from offline.training.bases import load_base

    model = load_base(folder).model
    return Size(folder=folder, blocks=model.config.num_hidden_layers, parameters=model.num_parameters())


def take_turns(
    writers: Mapping[Contestant, WriteAll], batches: Sequence[Sequence[UserProfile]], clock: Callable[[], float]
) -> tuple[dict[Contestant, list[float]], dict[Contestant, float]]:
    """Lists per second of each round, and mean words of a list; the first batch warms up and does not count."""
    rates: dict[Contestant, list[float]] = {name: [] for name in writers}
    words: dict[Contestant, list[int]] = {name: [] for name in writers}
    for number, batch in enumerate(batches):
        for name, write in writers.items():
            began = clock()
            texts = write(batch)
            rate = len(batch) / (clock() - began)
            console.print(f"{'warm-up' if number == 0 else f'round {number}'}: {' '.join(name)}, {rate:.2f} lists/s")
            if number:
                rates[name].append(rate)
                words[name] += [len(text.split()) for text in texts]
    return rates, {name: statistics.fmean(counts) for name, counts in words.items()}


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> Speed:
    """Round by round: both ran beside the same load."""
    return Speed.of([left / right for left, right in zip(ours, theirs, strict=True)])


def show(report: RunsReport) -> None:
    table = Table("", "lists/s, median (min–max)", "words", title=f"{report.rounds} rounds of {report.prompts} prompts")
    for row in report.speeds:
        table.add_row(f"{row.role}, {row.engine}", str(row.speed), f"{row.words:.1f}")
    output.print(table)
    for role, size in (("teacher", report.teacher), ("student", report.student)):
        output.print(f"{role}: {size.blocks} blocks, {size.parameters / 1e6:.1f} million parameters")
    output.print(f"student as served / teacher in transformers: {report.served_over_plain_teacher}")
    for engine, ratio in report.same_engine.items():
        output.print(f"student / teacher, both in {engine}: {ratio}")
