"""`keenstream bench NAME`: the measurements that the README quotes."""

import runpy
import sys
from importlib.resources import files
from typing import Annotated

import typer

from schemas.errors import UsageError

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Which benchmark; without it they are listed.")] = "",
) -> None:
    """Run a benchmark; further options go to it (`keenstream bench student --help`).

    Example: `keenstream bench fold --events 100000`
    """
    names = sorted(
        entry.name.removesuffix(".py")
        for entry in files("bench").iterdir()
        if entry.name.endswith(".py") and not entry.name.startswith("_")
    )
    if name == "--help":  # not an option of typer's here: after a name it is the benchmark's
        typer.echo(context.get_help())
        return
    if not name:
        typer.echo("\n".join(names))
        return
    if name not in names:
        raise UsageError(f"there is no benchmark {name}; there are: {', '.join(names)}")
    sys.argv = [f"keenstream bench {name}", *context.args]
    runpy.run_module(f"bench.{name}", run_name="__main__")
