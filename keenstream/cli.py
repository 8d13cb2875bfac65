"""The command line: `keenstream COMMAND`. Each command's module is imported only when it runs.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from typer.exceptions import TyperException

from keenstream.commands import application
from schemas.errors import KeenstreamError, UsageError
from schemas.full_disk import full_disk_message, full_disk_reason

INTERRUPTED = 130
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def main(build: Callable[[], typer.Typer] = application) -> None:
    """Entry point of the `keenstream` script; `build` imports and gives the commands."""
    logging.basicConfig(level=os.environ.get("KEENSTREAM_LOG_LEVEL", "WARNING"), format=LOG_FORMAT)
    logging.getLogger("kafka.net").setLevel(logging.ERROR)  # it warns of its own slow starts, which nobody can mend
    logging.getLogger().addFilter(lambda record: "apitools not found" not in record.getMessage())  # Beam's, on import
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")  # else it tells of each new process
    errors = Console(stderr=True, highlight=False)
    before = threading.enumerate()
    try:
        command = typer.main.get_command(build())
        code = command(standalone_mode=False)
        if code == INTERRUPTED:  # what typer makes of a Ctrl-C
            _end_interrupted(errors, before)
        sys.exit(code)
    except (typer.Abort, KeyboardInterrupt):  # the end of the input at a question; a Ctrl-C during the imports
        _end_interrupted(errors, before)
    except TyperException as error:
        error.show()  # type: ignore[attr-defined]  # declared on a private base in typer 0.29
        sys.exit(error.exit_code)
    except UsageError as error:
        errors.print(f"[bold red]Usage:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except KeenstreamError as error:
        errors.print(f"[bold red]Failed:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
    except Exception as error:
        if not (reason := full_disk_reason(error)):
            raise
        place = getattr(error, "filename", None) or f"the output (or of {tempfile.gettempdir()})"
        errors.print(f"[bold red]Failed:[/] {escape(full_disk_message(place, reason))}", soft_wrap=True)
        sys.exit(1)


def _end_interrupted(errors: Console, before: list[threading.Thread]) -> NoReturn:
    """At once where threads that can't be stopped go on (a Beam job's): they tell how they lose the interpreter."""
    errors.print("Interrupted.")
    if any(thread.daemon for thread in threading.enumerate() if thread not in before):
        sys.stdout.flush()
        os._exit(INTERRUPTED)
    sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
