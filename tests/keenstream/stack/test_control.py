"""The supervising process as its users meet it: started, killed, interrupted, found stale."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from keenstream.stack.control import down, running_stack, stack_environment, status, up
from keenstream.stack.options import StackOptions, WorkerSpec
from keenstream.stack.state import RunState, processes_of, read_state
from schemas.config import Config
from schemas.errors import Unavailable, UsageError
from tests.keenstream.stack.programs import SLEEPER, eventually, gone

SERVER = (
    "import http.server, os;"
    "http.server.HTTPServer(('127.0.0.1', int(os.environ['PAGE_PORT'])), http.server.SimpleHTTPRequestHandler)"
    ".serve_forever()"
)


def options(*workers: WorkerSpec) -> StackOptions:
    return StackOptions(kafka=False, milvus=False, workers=workers)


def worker(name: str, argv: tuple[str, ...] = SLEEPER) -> WorkerSpec:
    return WorkerSpec(name=name, argv=argv, grace_seconds=1)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    down(tmp_path)


def pid_of(state: RunState, name: str) -> int:
    process = state.part(name).process
    assert process
    return process.pid


def test_up_returns_when_all_is_ready_and_down_leaves_nothing(home: Path) -> None:
    state = up(home, options(worker("a"), worker("b")), Config())
    assert state.ready
    assert status(home) is not None
    assert down(home) == 0
    assert status(home) is None
    assert processes_of(state.run_id) == []
    assert not state.supervisor.alive()


def test_the_stack_outlives_the_process_that_started_it_and_answers_on_a_moved_port(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        page = WorkerSpec(
            name="page",
            argv=(sys.executable, "-c", SERVER),
            port=taken.getsockname()[1],
            port_variable="PAGE_PORT",
            ready_url="http://127.0.0.1:{port}/",
        )
        state = up(home, options(page), Config())
        assert stack_environment(home)["PAGE_PORT"] != str(taken.getsockname()[1])
        assert state.part("page").address == f"127.0.0.1:{stack_environment(home)['PAGE_PORT']}"
        assert psutil.Process(state.supervisor.pid).ppid() in (os.getpid(), 1)


def test_a_second_up_in_the_same_folder_is_refused(home: Path) -> None:
    up(home, options(worker("a")), Config())
    with pytest.raises(UsageError, match="keenstream stack down"):
        up(home, options(worker("a")), Config())


def test_up_ends_everything_when_a_part_does_not_start(home: Path) -> None:
    broken = worker("broken", (sys.executable, "-c", "print('no licence'); raise SystemExit(1)"))
    seen: list[RunState] = []
    with pytest.raises(Unavailable, match=r"broken does not start: (.|\n)*no licence"):
        up(home, options(worker("a"), broken), Config(), watch=seen.append)
    assert processes_of(seen[0].run_id) == []
    assert read_state(home) is None


def test_a_killed_supervisor_takes_the_parts_along_and_the_next_up_works(home: Path) -> None:
    first = up(home, options(worker("a")), Config())
    part = pid_of(first, "a")
    os.kill(first.supervisor.pid, signal.SIGKILL)
    eventually(lambda: gone(part))
    assert status(home) is None
    second = up(home, options(worker("a")), Config())
    assert second.run_id != first.run_id


def test_down_after_a_killed_supervisor_ends_what_is_left(home: Path) -> None:
    child = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    state = up(home, options(worker("a", (sys.executable, "-c", f"{child}; time.sleep(600)"))), Config())
    eventually(lambda: len(processes_of(state.run_id)) == 2)
    os.kill(state.supervisor.pid, signal.SIGKILL)
    eventually(lambda: len(processes_of(state.run_id)) == 1)  # the kernel ends children, not grandchildren
    assert down(home) == 1
    assert processes_of(state.run_id) == []


def test_sigterm_to_the_supervisor_ends_everything(home: Path) -> None:
    state = up(home, options(worker("a")), Config())
    os.kill(state.supervisor.pid, signal.SIGTERM)
    eventually(lambda: read_state(home) is None)
    assert processes_of(state.run_id) == []


def test_down_without_a_stack_does_nothing(home: Path) -> None:
    assert down(home) == 0


def test_a_with_block_ends_the_stack_also_after_an_error(home: Path) -> None:
    with pytest.raises(ZeroDivisionError), running_stack(home, options(worker("a")), Config()) as state:
        raise ZeroDivisionError
    assert processes_of(state.run_id) == []


def test_a_with_block_keeps_the_stack_when_asked(home: Path) -> None:
    with running_stack(home, options(worker("a")), Config(), keep=True):
        pass
    assert status(home) is not None


PROGRAM = """
import sys
from pathlib import Path
from keenstream.stack.control import running_stack
from keenstream.stack.options import StackOptions, WorkerSpec
from schemas.config import Config

sleep = (sys.executable, "-c", "import time; time.sleep(600)")
never = WorkerSpec(name="never", argv=sleep, ready_url="http://127.0.0.1:9/", grace_seconds=1)
fine = WorkerSpec(name="fine", argv=sleep, grace_seconds=1)
workers = (fine, never) if sys.argv[2] == "starting" else (fine,)
options = StackOptions(kafka=False, milvus=False, workers=workers)
with running_stack(Path(sys.argv[1]), options, Config()):
    print("up", flush=True)
    __import__("time").sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
@pytest.mark.parametrize("stage", ["starting", "running"])
def test_nothing_is_left_of_an_interrupted_demo(home: Path, stage: str, number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(home), stage], stderr=subprocess.PIPE) as demo:
        eventually(lambda: (state := read_state(home)) and state.part("fine").status == "ready")
        state = read_state(home)
        assert state
        demo.send_signal(number)
        demo.wait(90)
    supervisor = state.supervisor
    eventually(lambda: not supervisor.alive())
    assert read_state(home) is None
    assert processes_of(state.run_id) == []
