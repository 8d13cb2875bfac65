"""`keenstream train cleaner`: the classifier of pages and searches that say nothing of a reader's interests."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keenstream.commands.console import JSON_OPTION, console, print_json
from keenstream.commands.train_models import Device, Minutes, Out, Steps, training_session

if TYPE_CHECKING:  # torch loads when the command runs
    from offline.training.cleaner_scores import CleanerScore, Share
    from offline.training.manifest import RunManifest


def cleaner(
    labels: Annotated[
        list[Path],
        typer.Argument(help="Folders of `keenstream simulate`, and files of JSON Lines with text and label."),
    ],
    out: Out,
    base: Annotated[
        str,
        typer.Option("--base", help="tiny: a small RoBERTa of random weights; else a folder or name of a checkpoint."),
    ] = "tiny",
    device: Device = "cpu",
    steps: Steps = None,
    most_wrong: Annotated[
        float, typer.Option(min=0, max=1, help="Share of texts to be kept that may be dropped (validation readers).")
    ] = 0.01,
    minutes: Minutes = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Train on labels, and report precision and recall on held-out readers beside the rules alone.

    A label is a line such as {"text": "my account", "label": "drop", "kind": "page", "user_id": "u1"}: `label` is keep
    or drop; `kind` (page or search) and `user_id`, by which readers are held out, may be missing.

    Example: `keenstream train cleaner world labels.jsonl --out runs/cleaner`
    """
    from offline.training.cleaner import read_scores
    from offline.training.job import TrainingJob, run_job

    job = TrainingJob(
        kind="cleaner",
        folder=str(out),
        labels=tuple(str(path) for path in labels),
        base=base,
        device=device,
        steps=steps,
        most_wrong=most_wrong,
    )
    with training_session(device, minutes) as session:
        manifest = run_job(job, session)
    if as_json:
        print_json({"run": manifest, "scores": read_scores(out)})
    else:
        _show(manifest, read_scores(out), out)


def _show(manifest: "RunManifest", scores: "list[CleanerScore]", out: Path) -> None:
    from rich.table import Table

    table = Table("texts", "cleaned by", "precision", "recall", "wrongly dropped", "events", title="held-out readers")
    for row in scores:
        table.add_row(
            row.texts,
            row.system,
            _share(row.precision),
            _share(row.recall),
            f"{row.wrongly_dropped:.2%}",
            f"{row.rows:,}",
        )
    console.print(table)
    console.print("unseen: texts that no training reader had; wrongly dropped: of what their labels keep")
    console.print(f"cleaner, {manifest.steps} steps; model, curves, scores and manifest are in {out}", soft_wrap=True)


def _share(share: "Share") -> str:
    if share.value is None or share.low is None or share.high is None:
        return "-"
    return f"{share.value:.3f} ±{(share.high - share.low) / 2:.3f}"
