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

from keenstream.commands.console import JSON_OPTION, print_json, step_progress
from keenstream.commands.reward_weights import Weights, parse_weights
from schemas.errors import UsageError

if TYPE_CHECKING:
    from offline.evaluate.evaluation import Evaluation, Models
    from offline.evaluate.policies import OpenPolicy
    from offline.evaluate.sequence_settings import SequenceSettings
    from schemas.clients.models import Cleaner, Embedder
    from schemas.config import Config
    from schemas.prompt import PromptVersion

DEADLINE_SECONDS = 900.0  # of one list, all that wait before it included


Examples = Annotated[
    Path | None, typer.Argument(help="Folder of `keenstream train prepare`; without it a world is simulated.")
]
ModelOption = Annotated[
    list[str], typer.Option(help="NAME=FOLDER of a run or checkpoint; the same NAME again: another training of it.")
]
ServedOption = Annotated[list[str], typer.Option(help="NAME=HOST:PORT of a Triton; it says which prompt it reads.")]
ListsOption = Annotated[list[str], typer.Option(help="NAME=FILE of JSON Lines: user_id, completions.")]
Samples = Annotated[int, typer.Option(min=1, max=32, help="N: lists of each reader, for best-of-N.")]
BestOf = Annotated[list[str], typer.Option(help="NAME of a model that writes N lists; without it all do.")]
BestOfReaders = Annotated[
    int, typer.Option(min=0, help="Measure best-of-N on so many readers, chosen by hash; 0: all.")
]
Beyond = Annotated[
    list[str],
    typer.Option(
        "--reward",
        help="A reward that the paper does not have, for best-of-N: copying, or expected_hit, which learns a click "
        "model of training readers (minutes) and gives it a row.",
    ),
]
Readers = Annotated[int, typer.Option(min=0, help="At most so many held-out and validation readers; 0: all.")]
LaterNews = Annotated[
    bool, typer.Option("--later-news", help="Also search what is published in the days whose clicks count.")
]
Engine = Annotated[
    str, typer.Option(help="Of the checkpoints: transformers, or openvino, as they are served on a CPU.")
]
Keep = Annotated[
    Path | None,
    typer.Option(help="Folder of lists and of sequence models' answers: what it holds is not made again."),
]
CleanerOption = Annotated[
    bool, typer.Option("--cleaner", help="Also by profiles as the built cleaner leaves them: `NAME, cleaned`.")
]
Articles = Annotated[
    Path | None, typer.Option(help="Given articles for the simulated world (JSON Lines, as `simulate` reads).")
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for evaluation.json and .md, and plots.")]


def evaluate(
    examples: Examples = None,
    model: ModelOption = [],  # noqa: B006  # typer copies it
    served: ServedOption = [],  # noqa: B006
    lists: ListsOption = [],  # noqa: B006
    samples: Samples = 1,
    best_of: BestOf = [],  # noqa: B006
    best_of_readers: BestOfReaders = 0,
    reward: Beyond = [],  # noqa: B006
    weight: Weights = [],  # noqa: B006
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions of what is random.")] = 3,
    readers: Readers = 0,
    fresh_days: Annotated[float, typer.Option(min=0.01, help="Articles older than this are not alive.")] = 3.0,
    later_news: LaterNews = False,
    sequences: Annotated[bool, typer.Option(help="--no-sequences leaves out SASRec and GRU4Rec.")] = True,
    articles: Articles = None,
    gap: Annotated[float, typer.Option(min=0, max=1, help="Of the simulated world.")] = 0.5,
    simulated: Annotated[int, typer.Option(min=10, help="Readers of the simulated world.")] = 4_000,
    seed: Annotated[int, typer.Option(help="Of the simulated world.")] = 7,
    device: Annotated[str, typer.Option(help="Of the checkpoints: cpu or cuda.")] = "cpu",
    engine: Engine = "transformers",
    keep: Keep = None,
    cleaner: CleanerOption = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes of the FnApiRunner.")] = 1,
    runner: Annotated[str, typer.Option(help="A Beam runner.")] = "FnApiRunner",
    beam: Annotated[list[str], typer.Option("--beam", help="An option for Beam.")] = [],  # noqa: B006
    out: Out = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Recall, NDCG and MRR of models' lists beside popularity, BM25, the reader's own signals, sequence models, ...

    Example: `keenstream evaluate examples --model student=runs/student --engine openvino --samples 8 --out report`.
    Models named prompt-only, teacher(-without-REWARD), student(-supervised, -none, -X) are compared as in the paper.
    """
    from keenstream.settings import resolve_config
    from offline.evaluate import evaluation as protocol
    from offline.runners import RunnerSettings

    config = resolve_config()
    settings = protocol.EvaluationSettings(
        fresh_days=fresh_days,
        later_news=later_news,
        most_readers=readers,
        seeds=tuple(range(1, seeds + 1)),
        samples=samples,
        best_of=tuple(best_of),
        best_of_readers=best_of_readers,
        beyond=tuple(reward),
        reward_weights=parse_weights(weight),
        cleaner_signals=config.interests.cleaner_signals,
        sequences=_sequences(sequences),
        keep=keep,
        api=config.api,
        runner=RunnerSettings(runner=runner, workers=workers, options=tuple(beam)),
    )
    models = _grouped(_checkpoints(model, device, engine, keep) + _served_models(served) + _written(lists))
    embedder, cleaning = _built(cleaner)
    with _examples(examples, config, articles, gap, simulated, seed) as folder, step_progress("evaluating") as step:
        found = protocol.evaluate(folder, models, embedder, settings, step, cleaning)
    _tell(found, out, as_json)


def _sequences(wanted: bool) -> "SequenceSettings | None":
    from offline.evaluate.sequence_settings import SequenceSettings

    return SequenceSettings() if wanted else None


def _built(with_cleaner: bool) -> "tuple[Embedder, Cleaner | None]":
    """The embedder, and the cleaner where one is wanted, from the state folder."""
    from keenstream.stack.folders import state_folder
    from offline.evaluate.local_cleaner import LocalCleaner
    from offline.evaluate.local_embedder import LocalEmbedder
    from offline.release.models import ModelPaths

    paths = ModelPaths.below(state_folder())
    return LocalEmbedder(paths.embedder), LocalCleaner(paths.cleaner) if with_cleaner else None


def _tell(evaluation: "Evaluation", out: Path | None, as_json: bool) -> None:
    if out:
        _write(evaluation, out)
    if as_json:
        print_json(evaluation)
    else:
        from keenstream.commands.evaluation_tables import show

        show(evaluation)


@contextmanager
def _examples(
    given: Path | None, config: "Config", articles: Path | None, gap: float, readers: int, seed: int
) -> Iterator[Path]:
    """The prepared folder, or that of a world simulated for this evaluation."""
    if given:
        if articles:
            raise UsageError("--articles is for a simulated world: the examples have their own articles")
        yield given
        return
    from offline.runners import RunnerSettings
    from offline.simulate import SimulationSettings, checked, write_simulation
    from offline.training.preparation import PrepareSettings, prepare_examples
    from schemas.article import Article
    from stream.feeds.jsonl import read_articles

    news = [line.row for line in read_articles(articles) if isinstance(line.row, Article)] if articles else None
    with TemporaryDirectory(prefix="keenstream-world-") as scratch, step_progress("simulating") as step:
        world, folder = Path(scratch) / "world", Path(scratch) / "examples"
        write_simulation(world, checked(SimulationSettings(readers=readers, gap=gap, seed=seed)), news)
        prepared = PrepareSettings(profiles=config.profiles)
        prepare_examples(world, folder, prepared, RunnerSettings(), lambda name, done, of: step(f"{name} {done}/{of}"))
        yield folder


def _grouped(named: list[tuple[str, "OpenPolicy"]]) -> "Models":
    """A name that is given several times is one model, trained several times."""
    found: dict[str, list[OpenPolicy]] = {}
    for name, policy in named:
        found.setdefault(name, []).append(policy)
    return found


def _checkpoints(options: list[str], device: str, engine: str, keep: Path | None) -> list[tuple[str, "OpenPolicy"]]:
    from offline.evaluate.policies import of_checkpoint
    from offline.evaluate.prompt_writers import Checkpoint, known_engine
    from offline.evaluate.served_prompt import checkpoint_in

    by = known_engine(engine)
    found: list[tuple[str, OpenPolicy]] = []
    for name, place in _named(options, "--model"):
        given, prompt = _with_prompt(place, ":")
        folder, own = checkpoint_in(given)
        checkpoint = Checkpoint(folder=folder, prompt=prompt or own, engine=by, device=device)
        found.append((name, of_checkpoint(checkpoint, keep)))
    return found


def _served_models(options: list[str]) -> list[tuple[str, "OpenPolicy"]]:
    from offline.evaluate.policies import ask_served
    from schemas.clients.triton import TritonStudent

    found: list[tuple[str, OpenPolicy]] = []
    for name, place in _named(options, "--served"):
        address, prompt = _with_prompt(place, "/")
        student = partial(TritonStudent, address, deadline_seconds=DEADLINE_SECONDS)
        found.append((name, ask_served(student, prompt)))
    return found


def _written(options: list[str]) -> list[tuple[str, "OpenPolicy"]]:
    from offline.evaluate.policies import of_file

    return [(name, of_file(Path(place))) for name, place in _named(options, "--lists")]


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
