"""`keenstream doctor`: what this machine lacks, and how to mend it."""

import typer
from rich.markup import escape
from rich.table import Table

from keenstream.commands.console import JSON_OPTION, console, print_json

COLORS = {"ok": "green", "warning": "yellow", "missing": "red"}


def doctor(as_json: bool = JSON_OPTION) -> None:
    """Check Java, memory, disk, ports, versions and models, and say how to mend what is wrong.

    Example: `keenstream doctor`
    """
    from keenstream.doctor import run_checks
    from keenstream.settings import resolve_config

    checks = run_checks(config=resolve_config())
    missing = sum(not check.ok for check in checks)
    if as_json:
        print_json(checks)
    else:
        table = Table("check", "", "found", "how to mend it")
        for check in checks:
            level = f"[{COLORS[check.level]}]{check.level}[/]"
            table.add_row(check.name, level, escape(check.found), "" if check.level == "ok" else escape(check.mend))
        console.print(table)
        console.print(f"{missing} missing: mend them first." if missing else "Nothing is missing: the stack can run.")
    if missing:
        raise typer.Exit(1)
