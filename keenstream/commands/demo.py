"""`keenstream demo`: the main job on real parts, from nothing."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from keenstream.commands.console import JSON_OPTION, console, print_json


def demo(
    articles: Annotated[
        Path | None, typer.Option(help="JSON Lines of articles or HuffPost-style headlines; default: generated ones.")
    ] = None,
    readers: Annotated[int, typer.Option(min=3, help="How many simulated readers.")] = 60,
    generated: Annotated[int, typer.Option(min=100, help="Size of the generated news world.")] = 1_500,
    seed: Annotated[int, typer.Option(help="Another seed, another world.")] = 7,
    keep: Annotated[bool, typer.Option(help="Leave everything running at the end; KEEP=1 does the same.")] = False,
    as_json: bool = JSON_OPTION,
) -> None:
    """Start Kafka, Triton and Milvus, replay simulated readers, and show three of them with their queries and articles.

    Example: `keenstream demo --articles headlines.jsonl --readers 100`
    """
    from keenstream.demo.run import DemoOptions, run_demo
    from schemas.errors import UsageError

    if articles and not articles.is_file():
        raise UsageError(f"there is no file {articles}; leave --articles out for the generated news world")
    kept = keep or os.environ.get("KEEP", "") not in ("", "0")
    if as_json:
        console.file = sys.stderr  # standard output is for the figures alone
    summary = run_demo(
        DemoOptions(articles=articles, readers=readers, generated_articles=generated, seed=seed, keep=kept)
    )
    if as_json:
        print_json(summary)
