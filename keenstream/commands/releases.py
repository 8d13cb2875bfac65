"""`keenstream models release | promote | rollback | ship`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keenstream.commands.console import JSON_OPTION, console, print_json, step_progress

if TYPE_CHECKING:  # torch and OpenVINO load when a command runs
    from offline.release.releases import HeldOut, Release
    from offline.release.shipped import ShippedManifest
    from offline.release.student import Progress
    from offline.release.versions import ModelServer

Load = Annotated[
    bool, typer.Option("--load/--no-load", help="Load it into the running Triton; else its next start serves it.")
]

Readers = Annotated[int, typer.Option(min=1, help="Held-out readers at most on whom it is judged.")]
Lists = Annotated[int, typer.Option(min=1, help="How many of them have lists as trained and as served compared.")]


def release(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run of `keenstream train`.")],
    examples: Annotated[Path, typer.Option(help="Prepared examples: the release is judged on their held-out readers.")],
    readers: Readers = 1_000,
    lists: Lists = 200,
    overlap: Annotated[float, typer.Option(min=0, max=1, help="Least mean overlap with the trained lists.")] = 0.7,
    precision: Annotated[str, typer.Option(help="auto | f32 | bf16, of the comparison")] = "auto",
    as_json: bool = JSON_OPTION,
) -> None:
    """Merge, convert and check a trained model; it gets the next number and is not served yet.

    Example: `keenstream models release runs/student --examples examples`
    """
    from keenstream.stack.folders import state_folder
    from offline.release.releases import release_run, releases_below

    home = state_folder()
    with step_progress("releasing") as progress:
        held_out = _held_out(examples, readers, lists, progress)
        made = release_run(
            run,
            releases_below(home / "models"),
            held_out,
            now_ms=int(time.time() * 1000),
            progress=progress,
            least_overlap=overlap,
            precision=precision,
        )
    if as_json:
        print_json(made)
    else:
        _print_release(made)


def promote(
    number: Annotated[int, typer.Argument(min=1, help="Number of the release.")],
    force: Annotated[bool, typer.Option(help="Also when it does not beat the reader's own signals.")] = False,
    load: Load = True,
    as_json: bool = JSON_OPTION,
) -> None:
    """Serve a release: a new version beside the old one, loaded without an unload, asked once, or taken back.

    Example: `keenstream models promote 3`
    """
    from keenstream.stack.folders import state_folder
    from offline.release.models import ModelPaths
    from offline.release.promotion import promote as promote_release
    from offline.release.releases import read_release, releases_below

    home = state_folder()
    releases = releases_below(home / "models")
    found, repository = read_release(releases, number), ModelPaths.below(home).repository
    entry = promote_release(found, releases, repository, _server(load), now_ms=int(time.time() * 1000), force=force)
    if as_json:
        print_json(entry)
    else:
        console.print(f"{entry.model_version} is served as version {entry.version} of the student{when(load)}")


def rollback(load: Load = True, as_json: bool = JSON_OPTION) -> None:
    """Serve what was served before the latest promotion.

    Example: `keenstream models rollback`
    """
    from keenstream.stack.folders import state_folder
    from offline.release.models import ModelPaths
    from offline.release.promotion import rollback as roll_back

    entry = roll_back(ModelPaths.below(state_folder()).repository, _server(load))
    if as_json:
        print_json(entry)
    else:
        console.print(f"{entry.model_version if entry else 'the model of the set-up'} is served again{when(load)}")


def when(load: bool) -> str:
    """The end of a sentence that says that a model is served."""
    return "" if load else ", from Triton's next start on"


def ship(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run that began with the base of the set-up.")],
    examples: Annotated[Path, typer.Option(help="Prepared examples: judged on their held-out readers.")],
    version: Annotated[str, typer.Option(help="Of the shipped weights.")] = "1",
    rank: Annotated[int, typer.Option(min=1, help="Of the adapter: what training changed, cut to so many.")] = 32,
    bits: Annotated[int, typer.Option(min=0, max=8, help="Of each number that changed, instead of an adapter.")] = 0,
    readers: Readers = 1_000,
    lists: Lists = 200,
    overlap: Annotated[float, typer.Option(min=0, max=1, help="Least mean overlap with the run's lists.")] = 0.7,
    precision: Annotated[str, typer.Option(help="auto | f32 | bf16, of the comparison")] = "auto",
    command: Annotated[list[str], typer.Option(help="A command that makes the run again; repeat in order.")] = [],  # noqa: B006
    evaluation: Annotated[Path | None, typer.Option(help="Folder that `keenstream evaluate --out` wrote.")] = None,
    force: Annotated[bool, typer.Option(help="Also when it does not beat the reader's own signals.")] = False,
    out: Annotated[Path | None, typer.Option(help="Instead of triton_models/student/trained.")] = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Put a trained run into the repository as what training changed; the next `keenstream models build` serves it.

    An adapter of `--rank` holds a LoRA run; what training changed in full weights is held better by `--bits 4`.

    Example: `keenstream models ship runs/student --examples examples --rank 32`
    """
    from keenstream.stack.folders import state_folder
    from offline.release.models import ModelPaths
    from offline.release.shipped import SHIPPED
    from offline.release.shipping import Shipping, ship_run
    from offline.release.student import build_base

    home, target = state_folder(), out or SHIPPED
    paths = ModelPaths.below(home)
    settings = Shipping(
        version=version,
        rank=rank,
        bits=bits,
        least_overlap=overlap,
        precision=precision,
        commands=tuple(command),
        evaluation=evaluation,
        force=force,
    )
    with step_progress("shipping") as progress:
        build_base(paths.student_hf, paths.cache, progress)
        held_out = _held_out(examples, readers, lists, progress)
        made = ship_run(run, paths.student_hf, target, held_out, settings, progress)
    if as_json:
        print_json(made)
    else:
        _print_shipped(made, target)


def add_commands(app: typer.Typer) -> None:
    """To `keenstream models`."""
    for command in (release, promote, rollback, ship):
        app.command(command.__name__)(command)


def _held_out(examples: Path, readers: int, lists: int, progress: "Progress") -> "HeldOut":
    from keenstream.settings import resolve_config
    from keenstream.stack.folders import state_folder
    from offline.evaluate.local_embedder import LocalEmbedder
    from offline.release.judging import held_out_of
    from offline.release.models import ModelPaths

    embedder = LocalEmbedder(ModelPaths.below(state_folder()).embedder)
    return held_out_of(examples, embedder, resolve_config().api, progress, most=readers, compared=lists)


def _server(load: bool) -> "ModelServer | None":
    if not load:
        return None
    from keenstream.settings import resolve_config
    from offline.release.triton_swap import TritonModelServer
    from schemas.names import Model

    return TritonModelServer(resolve_config().triton, Model.STUDENT)


def _print_release(made: "Release") -> None:
    found = made.agreement
    console.print(f"release {made.number}: {made.layers} blocks, {found.lists} lists compared")
    console.print(f"  usable {found.valid:.0%} ({found.valid_before:.0%} as trained), overlap {found.overlap:.0%}")
    for name, value in made.scores.items():
        console.print(f"  {name}: {value:.3f}", markup=False)
    console.print(f"`keenstream models promote {made.number}` serves it")


def _print_shipped(made: "ShippedManifest", target: Path) -> None:
    size = sum(path.stat().st_size for path in target.iterdir()) / 1e6
    console.print(f"{made.name} {made.version} in {target} ({size:.1f} MB)", markup=False, soft_wrap=True)
    form = f"{made.bits} bits a number hold" if made.bits else f"rank {made.rank} holds"
    console.print(f"  {form} {made.explained:.1%} of what training changed")
    if found := made.agreement:
        console.print(f"  usable {found.valid:.0%} ({found.valid_before:.0%} as trained), overlap {found.overlap:.0%}")
    for name, value in made.scores.items():
        console.print(f"  {name}: {value:.3f}", markup=False)
    console.print("`keenstream models build` builds it, commit the folder to ship it")
