"""`--weight NAME=WEIGHT`, of a reward."""

from typing import Annotated

import typer

from schemas.errors import UsageError

Weights = Annotated[list[str], typer.Option("--weight", help="NAME=WEIGHT of a reward; 0 leaves it out.")]


def parse_weights(pairs: list[str]) -> dict[str, float]:
    """By name; UsageError for what is no pair of a name and a number."""
    try:
        return {name: float(value) for name, _, value in (pair.partition("=") for pair in pairs)}
    except ValueError as error:
        raise UsageError(f"--weight is NAME=WEIGHT, such as coverage=0.5: {error}") from error
