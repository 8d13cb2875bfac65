"""The supervising process: `python -m keenstream.stack.daemon HOME RUN_ID`, started by `control.up`.

Settings come from the environment, options from HOME/stack/options.json. It ends everything on SIGTERM and SIGINT.
"""

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import msgspec

from keenstream.stack.options import StackOptions, options_path
from keenstream.stack.parts import build_parts
from keenstream.stack.state import ProcessIdentity
from keenstream.stack.supervisor import Supervisor
from schemas.config import load_config
from schemas.errors import KeenstreamError


def main(home: Path, run_id: str) -> int:
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs each failed probe of a starting server
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    try:
        options = msgspec.json.decode(options_path(home).read_bytes(), type=StackOptions)
        built = build_parts(options, load_config(), home)
        identity = ProcessIdentity.of(os.getpid())
        Supervisor(built.parts, home, run_id, identity, environment=built.environment).run(stop)
    except KeenstreamError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
