"""`keenstream train prepare | ...`: from a log to examples, and from examples to models."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keenstream.commands.console import JSON_OPTION, console, print_json, steps_progress

if TYPE_CHECKING:  # Beam and torch load when a command runs
    from offline.training.example_set import ExamplesManifest

app = typer.Typer(no_args_is_help=True, help="Learning: examples of a log, and the models that are trained on them.")


@app.command("prepare")
def prepare(
    log: Annotated[Path, typer.Argument(help="An archive, a folder of `keenstream simulate`, or MIND's two files.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the examples; it is replaced.")],
    window: Annotated[
        float, typer.Option(min=0, help="Days after a moment whose clicks count; 0: a quarter of the log's time.")
    ] = 0.0,
    moments: Annotated[int, typer.Option(min=1, help="Moments at which training readers are seen.")] = 1,
    runner: Annotated[str, typer.Option(help="A Beam runner: FnApiRunner, PortableRunner, DaskRunner, ...")] = (
        "FnApiRunner"
    ),
    workers: Annotated[int, typer.Option(min=1, help="Processes of the FnApiRunner.")] = 1,
    beam: Annotated[
        list[str], typer.Option("--beam", help="An option for Beam, such as --job_endpoint=HOST:PORT.")
    ] = [],  # noqa: B006  # typer copies it
    as_json: bool = JSON_OPTION,
) -> None:
    """Examples for training and evaluation: readers as known at a moment, and what they clicked after it.

    Example: `keenstream train prepare archive --out examples --workers 2`
    """
    from keenstream.settings import resolve_config
    from keenstream.training_log import MIND_LACKS, is_mind, readable_log
    from offline.runners import RunnerSettings
    from offline.training.preparation import PrepareSettings, prepare_examples

    settings = PrepareSettings(window_days=window, training_moments=moments, profiles=resolve_config().profiles)
    runs_on = RunnerSettings(runner=runner, workers=workers, options=tuple(beam))
    with readable_log(log) as folder, steps_progress() as progress:
        manifest = prepare_examples(folder, out, settings, runs_on, progress)
    if is_mind(log):
        typer.echo(MIND_LACKS, err=True)
    if as_json:
        print_json(manifest)
    else:
        _print_manifest(manifest, out)


def _print_manifest(manifest: "ExamplesManifest", out: Path) -> None:
    console.print(f"{manifest.events:,} events of {manifest.readers:,} readers, {manifest.articles:,} articles")
    for name, split in manifest.splits.items():
        console.print(f"{name}: {split.examples:,} examples, {split.with_clicks:,} with clicks ({split.clicks:,})")
    console.print(f"written to {out}", markup=False, soft_wrap=True)
