"""`keenstream train warm-start | teacher | student`: resumable runs on prepared examples."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keenstream.commands.console import JSON_OPTION, console, print_json
from keenstream.commands.reward_weights import Weights, parse_weights
from keenstream.commands.training_progress import training_progress

if TYPE_CHECKING:  # torch loads when a command runs
    from offline.training.manifest import RunManifest
    from offline.training.stage import Session

Examples = Annotated[Path, typer.Argument(help="What `keenstream train prepare` wrote.")]
Out = Annotated[Path, typer.Option("--out", help="Folder of the run; repeating the command resumes it.")]
SizeOption = Annotated[str, typer.Option("--size", help="tiny | laptop | cluster")]
Device = Annotated[str, typer.Option(help="cpu | cuda")]
Base = Annotated[str, typer.Option("--base", help="Model to start from: a folder or a name; default: the size's own.")]
Layers = Annotated[
    int | None, typer.Option(min=1, help="Blocks kept of the base; default: the size's, and all of a --base.")
]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps of the last stage, instead of the size's.")]
Readers = Annotated[int | None, typer.Option(min=2, help="Train on the first so many examples only.")]
Seed = Annotated[int | None, typer.Option(help="Of everything random in the run: another training of the same.")]
Minutes = Annotated[
    float | None, typer.Option(min=0, help="Stop after so long with a checkpoint (exit code 1); repeat to go on.")
]
Beyond = Annotated[
    list[str], typer.Option("--reward", help="A reward that the paper does not have: hit, expected_hit, copying.")
]
JudgeKind = Annotated[str, typer.Option("--judge", help="Of coverage and specificity: embedding | llm")]
JudgeUrl = Annotated[
    str, typer.Option(help="OpenAI-compatible endpoint, up to /v1. Its key: the environment's KEENSTREAM_JUDGE_KEY.")
]
JudgeModel = Annotated[str, typer.Option(help="Name of the judge's model.")]
JudgeTimeout = Annotated[float, typer.Option(min=0.1, help="Seconds for one answer of the judge.")]


def warm_start(
    examples: Examples,
    out: Out,
    size: SizeOption = "laptop",
    device: Device = "cpu",
    base: Base = "",
    layers: Layers = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0, help="Instead of the size's: few blocks bear more.")
    ] = None,
    steps: Steps = None,
    readers: Readers = None,
    seed: Seed = None,
    minutes: Minutes = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Fine-tune a model on the best lists for the training readers: what a teacher starts from.

    It can be released and shipped by itself, as a student can.

    Example: `keenstream train warm-start examples --out runs/warm --size tiny`
    """
    common = {"size": size, "device": device, "base": base, "steps": steps, "readers": readers, "seed": seed}
    own = {"kind": "warm-start", "layers": layers, "learning_rate": learning_rate}
    _train(own | common, examples, out, minutes, as_json)


def teacher(
    examples: Examples,
    out: Out,
    size: SizeOption = "laptop",
    device: Device = "cpu",
    base: Base = "",
    layers: Layers = None,
    warm: Annotated[bool, typer.Option("--warm-start/--no-warm-start", help="First on chosen lists.")] = True,
    steps: Steps = None,
    readers: Readers = None,
    seed: Seed = None,
    reward: Beyond = [],  # noqa: B006  # typer copies it
    weight: Weights = [],  # noqa: B006
    judge: JudgeKind = "embedding",
    judge_url: JudgeUrl = "",
    judge_model: JudgeModel = "",
    judge_timeout: JudgeTimeout = 30.0,
    minutes: Minutes = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Warm start, then Dr. GRPO with the rewards; it stops with the reason when a gate closes.

    Examples: `keenstream train teacher examples --out runs/teacher --size laptop --minutes 110`, and
    `keenstream train teacher examples --out runs/judged --judge llm --judge-url http://localhost:8000/v1
    --judge-model Qwen2.5-7B-Instruct`. A judge that abstains in more than a fifth of its answers stops the run.
    """
    common = {"size": size, "device": device, "base": base, "steps": steps, "readers": readers, "seed": seed}
    rewards = {"beyond": tuple(reward), "reward_weights": parse_weights(weight)}
    judges = {
        "judge": judge,
        "judge_url": judge_url,
        "judge_model": judge_model,
        "judge_timeout": judge_timeout,
    }
    own = {"kind": "teacher", "warm_start": warm, "layers": layers}
    _train(own | common | rewards | judges, examples, out, minutes, as_json)


def student(
    examples: Examples,
    out: Out,
    teacher: Annotated[Path, typer.Option(help="Folder of the teacher's run.")],
    size: SizeOption = "laptop",
    device: Device = "cpu",
    method: Annotated[str, typer.Option(help="on-policy | supervised | none")] = "on-policy",
    base: Base = "",
    layers: Annotated[int | None, typer.Option(min=1, help="Blocks kept of the teacher, without --base.")] = None,
    steps: Steps = None,
    readers: Readers = None,
    seed: Seed = None,
    minutes: Minutes = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Distil a teacher into the most influential blocks of itself, or into a smaller model with its tokenizer.

    Example: `keenstream train student examples --out runs/student --teacher runs/teacher --layers 4`
    """
    common = {"size": size, "device": device, "base": base, "steps": steps, "readers": readers, "seed": seed}
    own = {"kind": "student", "method": method, "teacher": str(teacher), "layers": layers}
    _train(own | common, examples, out, minutes, as_json)


def add_commands(app: typer.Typer) -> None:
    """To `keenstream train`."""
    app.command("warm-start")(warm_start)
    app.command("teacher")(teacher)
    app.command("student")(student)


def _train(fields: dict[str, Any], examples: Path, out: Path, minutes: float | None, as_json: bool) -> None:
    import msgspec

    from keenstream.stack.folders import state_folder
    from offline.training.job import TrainingJob, run_job
    from schemas.errors import UsageError

    try:
        paths = {"folder": str(out), "examples": str(examples), "home": str(state_folder())}
        job = msgspec.convert({**fields, **paths}, TrainingJob)
    except msgspec.ValidationError as error:
        raise UsageError(str(error)) from error
    with training_session(job.device, minutes) as session:
        manifest = run_job(job, session)
    if as_json:
        print_json(manifest)
    else:
        _print_run(manifest, out)


@contextmanager
def training_session(device: str, minutes: float | None) -> "Iterator[Session]":
    """Progress with the time left, sentences above it, and the end of a slice of `minutes`."""
    from offline.training.job import JUDGE_KEY
    from offline.training.stage import Session
    from schemas.secret import Secret

    now = time.monotonic()
    with training_progress() as (watch, tell):
        yield Session(
            device=device,
            watch=watch,
            tell=tell,
            now_ms=int(time.time() * 1000),
            until=now + minutes * 60 if minutes is not None else None,
            judge_key=Secret(os.environ.get(JUDGE_KEY, "")),
        )


def _print_run(manifest: "RunManifest", out: Path) -> None:
    ended = f"stopped: {manifest.reason}" if manifest.reason else "done"
    console.print(f"{manifest.kind}, {manifest.steps} steps, {ended}", markup=False, soft_wrap=True)
    for name, value in manifest.scores.items():
        console.print(f"  {name}: {value:.3f}", markup=False)
    console.print(f"model, curves and manifest are in {out}", markup=False, soft_wrap=True)
