"""Query lists per second: Triton with the OpenVINO engine beside transformers' `generate`, with the same weights.

    keenstream bench student --prompts 32 --rounds 3
    keenstream bench student --teacher runs/teacher --student runs/student

Same prompts (rendered profiles of simulated readers, new ones in each round), same token limit, same end of a list;
the two take turns within one run, because only ratios of one run mean something on a busy machine. Then the served
lists are compared with what the engine writes without Triton: with `precision` f32 all must be the same, and with the
served precision near ties may fall otherwise in another batch. With two runs, those are compared (_student_runs.py).
"""

import asyncio
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from bench._machine import Machine, this_machine
from bench._reader_prompts import reader_profiles
from bench._student_runs import RunsReport, Speed, measure_runs, show
from keenstream.stack.folders import state_folder
from keenstream.stack.triton import triton_server
from offline.release.manifest import read_manifest
from offline.release.models import ModelPaths, build_models
from offline.release.repository import TEMPLATE_VERSION, TEMPLATES, assemble_repository
from offline.release.shipped import SHIPPED, merge_shipped, read_shipped
from schemas.clients.models import Completion
from schemas.clients.triton import TritonStudent, probe_student
from schemas.errors import UsageError
from schemas.names import Model
from schemas.prompt import PromptVersion, known_prompt, render_prompt

BATCH = 32
DEADLINE_SECONDS = 600.0

console = Console(highlight=False, stderr=True)
output = Console(highlight=False)


class StudentReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured."""

    machine: Machine
    prompts: int
    rounds: int
    max_new_tokens: int
    transformers: Speed
    served: Speed
    served_f32: Speed
    ratio: float
    same_as_engine: float  # share of the served lists, served precision
    same_as_engine_f32: float  # must be 1


def main(
    prompts: Annotated[int, typer.Option(min=8, help="Prompts in each round.")] = 32,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 40,
    teacher: Annotated[str, typer.Option(help="A run, or a checkpoint: with --student, the two are compared.")] = "",
    student: Annotated[str, typer.Option(help="A run, or a checkpoint.")] = "",
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file too.")] = None,
) -> None:
    """Measure the student. Example: `keenstream bench student --prompts 32 --rounds 3`"""
    if bool(teacher) != bool(student):
        raise UsageError("give both --teacher and --student to compare two runs, or neither to measure what is served")
    with TemporaryDirectory(prefix="keenstream-bench-") as scratch:
        if teacher:
            amount = {"prompts": prompts, "rounds": rounds, "max_new_tokens": max_new_tokens}
            _tell_runs(measure_runs(Path(scratch), teacher, student, **amount), json)
            return
        report = measure(Path(scratch), prompts, rounds, max_new_tokens)
    table = Table("", "lists/s, median (min–max)", title=f"Student, {rounds} rounds of {prompts} prompts")
    table.add_row("transformers generate, fp32, batch 32", str(report.transformers))
    table.add_row("Triton, OpenVINO, as served", str(report.served))
    table.add_row("Triton, OpenVINO, precision f32", str(report.served_f32))
    table.add_row("ratio, as served", f"{report.ratio:.1f}")
    output.print(table)
    output.print(
        f"the engine's own lists: {report.same_as_engine:.0%} as served, {report.same_as_engine_f32:.0%} in f32"
    )
    if json:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    if report.same_as_engine_f32 < 1:
        console.print("served lists differ from the engine's own: something is wrong between them", style="red")
        raise typer.Exit(1)


def _tell_runs(report: RunsReport, json: Path | None) -> None:
    show(report)
    if json:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))


def measure(scratch: Path, prompts: int, rounds: int, max_new_tokens: int) -> StudentReport:
    """Both engines in turns on the same prompts, then the comparison of the lists."""
    console.print("building the models and the readers")
    paths = build_models(state_folder(), lambda step: None)
    version = _prompt_of(paths.student)
    profiles = reader_profiles(scratch / "world", prompts * (rounds + 1))
    texts = [render_prompt(profile, version) for profile in profiles]
    warm, *batches = [texts[start : start + prompts] for start in range(0, len(texts), prompts)]
    slow = _Engine("transformers", _trained_weights(paths, scratch / "merged"), "f32", max_new_tokens)
    with _served(scratch / "auto", paths, "auto", max_new_tokens) as served:
        served(warm)
        rates = [(_timed(served, batch), _timed(slow, batch)) for batch in batches]
        same = _share_equal(served(batches[0]), _Engine("openvino", paths.student, "auto", max_new_tokens)(batches[0]))
    with _served(scratch / "f32", paths, "f32", max_new_tokens) as served:
        served(warm)
        exact_rates = [_timed(served, batch) for batch in batches]
        own = _Engine("openvino", paths.student, "f32", max_new_tokens)(batches[0])
        exact = _share_equal(served(batches[0]), own)
    fast, reference = Speed.of([fast for fast, _ in rates]), Speed.of([slow for _, slow in rates])
    return StudentReport(
        machine=this_machine(),
        prompts=prompts,
        rounds=rounds,
        max_new_tokens=max_new_tokens,
        transformers=reference,
        served=fast,
        served_f32=Speed.of(exact_rates),
        ratio=fast.median / reference.median,
        same_as_engine=same,
        same_as_engine_f32=exact,
    )


Writer = Callable[[Sequence[str]], list[str]]


def _timed(write: Writer, prompts: Sequence[str]) -> float:
    began = time.perf_counter()
    write(prompts)
    rate = len(prompts) / (time.perf_counter() - began)
    console.print(f"{rate:.2f} lists/s")
    return rate


def _share_equal(left: Sequence[str], right: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(left, right, strict=True)) / len(left)


class _Engine:
    """An engine of the served model in this process, in batches of 32; loaded as Triton's stub does."""

    def __init__(self, engine: str, weights: Path, precision: str, max_new_tokens: int) -> None:
        folder = str(TEMPLATES / Model.STUDENT / TEMPLATE_VERSION)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        lists, engines = importlib.import_module("lists"), importlib.import_module("engines")
        settings = lists.Settings(weights=weights, engine=engine, precision=precision, max_new_tokens=max_new_tokens)
        self._task: Any = lists.Task
        self._engine: Any = engines.make_engine(settings)

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        batches = [prompts[start : start + BATCH] for start in range(0, len(prompts), BATCH)]
        return [text for batch in batches for (text,) in self._engine.write([self._task(prompt) for prompt in batch])]


@contextmanager
def _served(folder: Path, paths: ModelPaths, precision: str, max_new_tokens: int) -> Iterator[Writer]:
    """The student behind a Triton of its own."""
    parameters = {"precision": precision, "max_new_tokens": str(max_new_tokens)}
    repository = folder / "repository"
    assemble_repository(repository, {Model.STUDENT: paths.student}, parameters={Model.STUDENT: parameters})

    def probe(address: str) -> None:
        asyncio.run(probe_student(address))

    with triton_server(folder / "run", repository, [Model.STUDENT], probe=probe, niceness=0) as server:
        yield lambda prompts: asyncio.run(_write(server.grpc, prompts))


async def _write(address: str, prompts: Sequence[str]) -> list[str]:
    student = TritonStudent(address, deadline_seconds=DEADLINE_SECONDS, concurrency=2 * BATCH)
    answers = await student.write(prompts)
    await student.close()
    return [answer.texts[0] if isinstance(answer, Completion) else _raised(answer) for answer in answers]


def _raised(error: Exception) -> str:
    raise error


def _prompt_of(served: Path) -> PromptVersion:
    manifest = read_manifest(served)
    if manifest is None:
        raise UsageError(f"{served} holds no served student: run `keenstream models build`")
    return known_prompt(manifest.prompt_version)


def _trained_weights(paths: ModelPaths, merged: Path) -> Path:
    """What the served student was converted from: the base, or with the shipped adapter merged into it."""
    shipped = read_shipped(SHIPPED)
    if shipped is None:
        return paths.student_hf
    merge_shipped(shipped, SHIPPED, paths.student_hf, merged)
    return merged


if __name__ == "__main__":
    typer.run(main)
