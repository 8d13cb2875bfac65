"""`keenstream stack up | status | down`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec.structs import replace
from rich.table import Table

from keenstream.commands.console import JSON_OPTION, console, print_json
from keenstream.stack.folders import demo_folder, state_folder
from keenstream.stack.state import PartState, RunState, live_state

app = typer.Typer(help="The local Kafka, Milvus and Triton under one supervisor.", no_args_is_help=True)

_COLORS = {"ready": "green", "done": "green", "failing": "red", "backing off": "red"}


@app.command()
def up(
    models: Annotated[bool, typer.Option(help="Build the models if needed and serve them with Triton.")] = True,
    workers: Annotated[
        bool, typer.Option("--workers", help="Our workers and the API too, on topics made for them.")
    ] = False,
    as_json: bool = JSON_OPTION,
) -> None:
    """Start every part whose address is on this machine; return when each answered a real request.

    A taken port is replaced by a free one, unless your settings name it. A stack that runs already is left alone.

    Example: `keenstream stack up --workers`
    """
    home = state_folder()
    state = live_state(home) or _start(home, models, workers, as_json)
    if as_json:
        print_json(_summary(state))
    else:
        console.print(_table(state))
        console.print(f"Logs are in {home / 'logs'}. `keenstream stack down` ends all of it.")


@app.command()
def status(as_json: bool = JSON_OPTION) -> None:
    """Show each part: whether it answers, where, since which restart; exit code 1 when not all are ready.

    Example: `keenstream stack status --json`
    """
    state = live_state(state_folder()) or live_state(demo_folder(state_folder()))
    if as_json:
        print_json(_summary(state) if state else {"run_id": None, "ready": False, "parts": []})
    else:
        console.print(_table(state) if state else "No stack runs here: `keenstream stack up` starts one.")
    if state is None or not state.ready:
        raise typer.Exit(1)


@app.command()
def down(as_json: bool = JSON_OPTION) -> None:
    """End all parts and whatever an earlier run left behind. Data stays in the state folder.

    Example: `keenstream stack down`
    """
    from keenstream.stack.control import down as end

    homes = (state_folder(), demo_folder(state_folder()))  # a demo that was kept up is a stack like any other
    running = any(live_state(home) is not None for home in homes)
    left_over = sum(end(home) for home in homes)
    if as_json:
        print_json({"ended": running, "left_over": left_over})
    elif running or left_over:
        console.print("The stack is down." + (f" {left_over} left-over processes were ended." if left_over else ""))
    else:
        console.print("No stack runs here.")


def _start(home: Path, models: bool, workers: bool, quiet: bool) -> RunState:
    from keenstream.settings import resolve_config
    from keenstream.stack.control import up as start
    from keenstream.stack.loop import loop_workers
    from keenstream.stack.options import StackOptions

    def say(text: str) -> None:
        if not quiet:
            console.print(text)

    config = resolve_config()
    options = StackOptions(workers=loop_workers(config, with_models=models) if workers else ())
    if models:
        from offline.release.models import build_models
        from offline.release.repository import served_models

        repository = build_models(home, say).repository
        options = replace(options, repository=str(repository), models=served_models(repository))
    return start(home, options, config, watch=_Changes(say).show)


class _Changes:
    """Says each change of a part's status once."""

    def __init__(self, say: Any) -> None:
        self._say, self._seen = say, dict[str, str]()

    def show(self, state: RunState) -> None:
        for part in state.parts:
            if self._seen.get(part.name) != part.status:
                self._seen[part.name] = part.status
                self._say(f"{part.name}: {part.status}" + (f" at {part.address}" if part.status == "ready" else ""))


def _table(state: RunState) -> Table:
    table = Table("part", "status", "address", "pid", "restarts", "problem", box=None)
    for part in state.parts:
        color = _COLORS.get(part.status, "yellow")
        pid = str(part.process.pid) if part.process else ""
        status = f"[{color}]{part.status}[/]"
        table.add_row(part.name, status, part.address, pid, str(part.restarts), _short(part.problem))
    return table


def _short(problem: str) -> str:
    return problem.splitlines()[0][:100] if problem else ""


def _summary(state: RunState) -> dict[str, Any]:
    """The state without its environment, which may hold keys."""
    return {"run_id": state.run_id, "ready": state.ready, "parts": [_part(part) for part in state.parts]}


def _part(part: PartState) -> dict[str, Any]:
    pid = part.process.pid if part.process else None
    return {
        "name": part.name,
        "status": part.status,
        "address": part.address,
        "pid": pid,
        "restarts": part.restarts,
        "problem": part.problem,
        "log": part.log,
    }
