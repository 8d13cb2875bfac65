"""`keenstream worker NAME`: one stream worker, or the API, in the foreground."""

from typing import Annotated

import typer

from schemas.errors import UsageError


def worker(
    name: Annotated[str, typer.Argument(help="profiles, signals, interests, articles, archive or api.")],
    metrics_port: Annotated[int, typer.Option(help="Serve /metrics on this port of 127.0.0.1; 0 = not.")] = 0,
    data_folder: Annotated[
        str, typer.Option(help="Where the worker keeps its local state; default: below the state folder.")
    ] = "",
) -> None:
    """Run one worker until Ctrl-C. Start as many of a kind as there are partitions, at most.

    Example: `keenstream worker profiles --metrics-port 9101`
    """
    import logging
    import os
    from pathlib import Path

    from keenstream.settings import resolve_config
    from keenstream.stack.folders import state_folder
    from keenstream.stack.loop import metrics_variable
    from keenstream.workers import RUNNERS
    from stream.monitoring import serve_metrics

    if name not in RUNNERS:
        raise UsageError(f"there is no worker {name}; there are: {', '.join(RUNNERS)}")
    logging.getLogger().setLevel(logging.INFO)
    for chatty in ("kafka", "aiokafka", "faust", "mode", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    folder = Path(data_folder) if data_folder else state_folder() / "workers" / name
    folder.mkdir(parents=True, exist_ok=True)
    serve_metrics(metrics_port or int(os.environ.get(metrics_variable(name), "0")))
    code = RUNNERS[name](resolve_config(), folder)
    raise typer.Exit(code)
