"""`keenstream evaluate`: policies and their rivals on held-out readers and later days.

The protocol is told at the top of offline/evaluate/evaluation.py, and in what the command writes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from keenstream.commands.console import JSON_OPTION, console, print_json, step_progress
from schemas.errors import UsageError

if TYPE_CHECKING:
    from offline.evaluate.evaluation import Evaluation, Models, Write
    from offline.evaluate.policies import Writing
    from schemas.config import Api
    from schemas.prompt import PromptVersion

DEADLINE_SECONDS = 900.0  # of one list, all that wait before it included


def evaluate(
    examples: Annotated[
        Path | None, typer.Argument(help="Folder of `keenstream train prepare`; without it a world is simulated.")
    ] = None,
    model: Annotated[
        list[str], typer.Option(help="NAME=FOLDER of a run or checkpoint; the same NAME again: another training of it.")
    ] = [],  # noqa: B006
    served: Annotated[
        list[str], typer.Option(help="NAME=HOST:PORT of a Triton; it says itself which prompt it reads.")
    ] = [],  # noqa: B006
    lists: Annotated[list[str], typer.Option(help="NAME=FILE of JSON Lines: user_id, completions.")] = [],  # noqa: B006
    samples: Annotated[int, typer.Option(min=1, max=32, help="Lists of each reader, for best-of-N.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions of what is random.")] = 3,
    readers: Annotated[int, typer.Option(min=0, help="At most so many held-out readers; 0: all.")] = 0,
    fresh_days: Annotated[float, typer.Option(min=0.01, help="Articles older than this are not alive.")] = 3.0,
    sequences: Annotated[bool, typer.Option(help="--no-sequences leaves out SASRec and GRU4Rec.")] = True,
    articles: Annotated[
        Path | None, typer.Option(help="Given articles for the simulated world (JSON Lines, as `simulate` reads).")
    ] = None,
    gap: Annotated[float, typer.Option(min=0, max=1, help="Of the simulated world.")] = 0.5,
    simulated: Annotated[int, typer.Option(min=10, help="Readers of the simulated world.")] = 4_000,
    seed: Annotated[int, typer.Option(help="Of the simulated world.")] = 7,
    device: Annotated[str, typer.Option(help="Of the checkpoints: cpu or cuda.")] = "cpu",
    engine: Annotated[
        str, typer.Option(help="Of the checkpoints: transformers, or openvino, as they are served on a CPU.")
    ] = "transformers",
    workers: Annotated[int, typer.Option(min=1, help="Processes of the FnApiRunner.")] = 1,
    runner: Annotated[str, typer.Option(help="A Beam runner.")] = "FnApiRunner",
    beam: Annotated[list[str], typer.Option("--beam", help="An option for Beam.")] = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option("--out", help="Folder for evaluation.json and .md, and plots.")] = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Recall, NDCG and MRR of models' lists beside popularity, BM25, the reader's own signals, sequence models, ...

    Example: `keenstream evaluate examples --model student=runs/student --engine openvino --samples 8 --out report`
    """
    from keenstream.stack.folders import state_folder
    from offline.evaluate.evaluation import EvaluationSettings
    from offline.evaluate.evaluation import evaluate as run
    from offline.evaluate.local_embedder import LocalEmbedder
    from offline.evaluate.policies import Writing
    from offline.evaluate.sequences import SequenceSettings
    from offline.experiments.runners import RunnerSettings
    from offline.release.models import ModelPaths

    settings = EvaluationSettings(
        fresh_days=fresh_days,
        most_readers=readers,
        seeds=tuple(range(1, seeds + 1)),
        sequences=SequenceSettings() if sequences else None,
        api=_api(),
        runner=RunnerSettings(runner=runner, workers=workers, options=tuple(beam)),
    )
    writing = Writing(samples=samples)
    models = _grouped(_checkpoints(model, writing, device, engine) + _served_models(served, writing) + _written(lists))
    embedder = LocalEmbedder(ModelPaths.below(state_folder()).embedder)
    with _examples(examples, articles, gap, simulated, seed) as folder, step_progress("evaluating") as step:
        evaluation = run(folder, models, embedder, settings, step)
    _tell(evaluation, out, as_json)


def _api() -> "Api":
    from keenstream.settings import resolve_config

    return resolve_config().api


def _tell(evaluation: "Evaluation", out: Path | None, as_json: bool) -> None:
    if out:
        _write(evaluation, out)
    if as_json:
        print_json(evaluation)
    else:
        _show(evaluation)


@contextmanager
def _examples(given: Path | None, articles: Path | None, gap: float, readers: int, seed: int) -> Iterator[Path]:
    """The prepared folder, or that of a world simulated for this evaluation."""
    if given:
        if articles:
            raise UsageError("--articles is for a simulated world: the examples have their own articles")
        yield given
        return
    from keenstream.settings import resolve_config
    from offline.experiments.runners import RunnerSettings
    from offline.simulate import SimulationSettings, checked, write_simulation
    from offline.training.preparation import PrepareSettings, prepare_examples
    from schemas.article import Article
    from stream.feeds.jsonl import read_articles

    news = [line.row for line in read_articles(articles) if isinstance(line.row, Article)] if articles else None
    with TemporaryDirectory(prefix="keenstream-world-") as scratch, step_progress("simulating") as step:
        world, folder = Path(scratch) / "world", Path(scratch) / "examples"
        write_simulation(world, checked(SimulationSettings(readers=readers, gap=gap, seed=seed)), news)
        prepared = PrepareSettings(profiles=resolve_config().profiles)
        prepare_examples(world, folder, prepared, RunnerSettings(), lambda name, done, of: step(f"{name} {done}/{of}"))
        yield folder


def _grouped(named: list[tuple[str, "Write"]]) -> "Models":
    """A name that is given several times is one model, trained several times."""
    found: dict[str, list[Write]] = {}
    for name, write in named:
        found.setdefault(name, []).append(write)
    return found


def _checkpoints(options: list[str], writing: "Writing", device: str, engine: str) -> list[tuple[str, "Write"]]:
    from offline.evaluate.policies import of_checkpoint
    from offline.evaluate.served_engine import ConvertedModel
    from offline.evaluate.served_prompt import checkpoint_in

    if engine not in ("transformers", "openvino"):
        raise UsageError(f"--engine is transformers or openvino, not {engine}")
    found: list[tuple[str, Write]] = []
    for name, place in _named(options, "--model"):
        given, prompt = _with_prompt(place, ":")
        folder, own = checkpoint_in(given)
        if engine == "openvino":
            found.append((name, ConvertedModel(folder, prompt or own, writing)))
        else:
            found.append((name, partial(of_checkpoint, folder, prompt or own, device, writing)))
    return found


def _served_models(options: list[str], writing: "Writing") -> list[tuple[str, "Write"]]:
    from offline.evaluate.policies import ask_served
    from schemas.clients.triton import TritonStudent

    found: list[tuple[str, Write]] = []
    for name, place in _named(options, "--served"):
        address, prompt = _with_prompt(place, "/")
        student = partial(TritonStudent, address, deadline_seconds=DEADLINE_SECONDS)
        found.append((name, partial(ask_served, student, prompt, writing)))
    return found


def _written(options: list[str]) -> list[tuple[str, "Write"]]:
    from offline.evaluate.policies import of_file, read_completions

    return [(name, partial(of_file, read_completions(Path(place)))) for name, place in _named(options, "--lists")]


def _named(options: list[str], option: str) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in options]
    for name, _, place in pairs:
        if not name or not place:
            raise UsageError(f"{option} {name}: write NAME=PLACE")
    return [(name, place) for name, _, place in pairs]


def _with_prompt(place: str, mark: str) -> tuple[str, "PromptVersion | None"]:
    from schemas.prompt import BARE, EXAMPLES

    for version in (BARE, EXAMPLES):
        if place.endswith(f"{mark}{version}"):
            return place.removesuffix(f"{mark}{version}"), version
    return place, None


def _write(evaluation: "Evaluation", out: Path) -> None:
    import msgspec

    from offline.evaluate.plots import write_plots
    from offline.evaluate.table import write_table

    out.mkdir(parents=True, exist_ok=True)
    scratch = out / "evaluation.json.tmp"
    scratch.write_bytes(msgspec.json.format(msgspec.json.encode(evaluation), indent=2) + b"\n")
    scratch.replace(out / "evaluation.json")
    write_table(evaluation, out)
    write_plots(evaluation, out)


def _show(evaluation: "Evaluation") -> None:
    from rich.table import Table

    from offline.evaluate.table import SHOWN, difference_cells, groups, metric_cell, ranked, shown_differences, told

    for group in groups(evaluation):
        table = Table("policy", *SHOWN.values(), "answered", title=f"{group} readers")
        for row in ranked(evaluation, group):
            table.add_row(row.policy, *(metric_cell(row.metrics[name]) for name in SHOWN), f"{row.answered:.0%}")
        console.print(table)
    if evaluation.differences:
        table = Table("policy", "against", "readers", "metric", "difference", "ratio", title="Paired by reader")
        for difference in shown_differences(evaluation):
            table.add_row(*difference_cells(difference))
        console.print(table)
    console.print(told(evaluation), markup=False)
