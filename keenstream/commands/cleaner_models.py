"""`keenstream models cleaner serve | rollback | ship`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keenstream.commands.console import JSON_OPTION, console, print_json, step_progress
from keenstream.commands.releases import Load, when

if TYPE_CHECKING:  # torch and OpenVINO load when a command runs
    from offline.release.versions import ModelServer

app = typer.Typer(
    no_args_is_help=True, help="The served cleaner: another one, the one before, the one that is shipped."
)

Run = Annotated[Path, typer.Argument(help="Folder of a finished run of `keenstream train cleaner`.")]
Force = Annotated[bool, typer.Option(help="Also when it earns nothing beside the rules.")]


@app.command("serve")
def serve(run: Run, force: Force = False, load: Load = True, as_json: bool = JSON_OPTION) -> None:
    """Convert, check and serve a trained cleaner: a new version beside the old one, asked once, or taken back.

    Example: `keenstream models cleaner serve runs/cleaner`
    """
    from offline.release.cleaner_serving import serve_cleaner

    with step_progress("serving") as progress:
        version = serve_cleaner(run, _repository(), _server(load), progress, force=force)
    _say(version, load, as_json)


@app.command("rollback")
def rollback(load: Load = True, as_json: bool = JSON_OPTION) -> None:
    """Serve the cleaner before the latest one.

    Example: `keenstream models cleaner rollback`
    """
    from offline.release.cleaner_serving import rollback_cleaner

    _say(rollback_cleaner(_repository(), _server(load)), load, as_json)


@app.command("ship")
def ship(
    run: Run,
    version: Annotated[str, typer.Option(help="Of the shipped weights.")] = "1",
    command: Annotated[list[str], typer.Option(help="A command that makes the run again; repeat in order.")] = [],  # noqa: B006
    force: Force = False,
    out: Annotated[Path | None, typer.Option(help="Instead of triton_models/cleaner/trained.")] = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Put a trained cleaner into the repository; the next `keenstream models build` serves it.

    Example: `keenstream models cleaner ship runs/cleaner --version 2`
    """
    from offline.release.cleaner import SHIPPED
    from offline.release.cleaner_serving import ship_cleaner

    target = out or SHIPPED
    with step_progress("shipping") as progress:
        made = ship_cleaner(run, target, progress, version=version, commands=command, force=force)
    if as_json:
        print_json(made)
    else:
        size = sum(path.stat().st_size for path in target.iterdir()) / 1e6
        console.print(f"cleaner {made.version} in {target} ({size:.1f} MB)", markup=False, soft_wrap=True)


def _repository() -> Path:
    from keenstream.stack.folders import state_folder
    from offline.release.models import ModelPaths
    from schemas.errors import UsageError

    repository = ModelPaths.below(state_folder()).repository
    if not repository.is_dir():
        raise UsageError(f"there is no model repository in {repository}: run `keenstream models build` first")
    return repository


def _server(load: bool) -> "ModelServer | None":
    if not load:
        return None
    from keenstream.settings import resolve_config
    from offline.release.triton_swap import TritonModelServer
    from schemas.names import Model

    return TritonModelServer(resolve_config().triton, Model.CLEANER)


def _say(version: str, load: bool, as_json: bool) -> None:
    if as_json:
        print_json({"model_version": version})
    else:
        console.print(f"{version} is served{when(load)}")
