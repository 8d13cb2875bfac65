"""The demo as a newcomer runs it: small, but on all real parts."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import psutil
import pytest

from keenstream.stack.state import RUN_VARIABLE

pytestmark = [pytest.mark.stack]
ROOT = Path(__file__).parents[3]
HEADLINES = ROOT.parent / "shared" / "data" / "news" / "huffpost_2018_2022.jsonl"
DEFAULT_PORTS = (9092, 8001, 19530, 8080)


@pytest.fixture
def home(tmp_path: Path, model_repository: Path) -> Path:
    """A state folder of its own that shares the built models and fetched servers."""
    built = model_repository.parents[1]
    for shared in ("models", "cache"):
        (tmp_path / shared).symlink_to(built / shared)
    return tmp_path


@pytest.fixture
def taken_ports() -> Iterator[None]:
    """Somebody else listens on the default ports."""
    with ExitStack() as stack:
        for port in DEFAULT_PORTS:
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
                listener.listen()
            except OSError:
                continue  # really somebody else
        yield


def start(home: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "keenstream.cli", "demo", "--readers", "8", "--json", *arguments],
        env={**os.environ, "KEENSTREAM_HOME": str(home), "KEEP": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def left_running(home: Path) -> list[str]:
    """Processes of any stack below `home`."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if RUN_VARIABLE in environment and str(home) in environment.get("KEENSTREAM_HOME", ""):
                found.append(process.name())
        except (psutil.Error, OSError):
            continue
    return found


def test_the_demo_shows_readers_and_leaves_nothing_running(home: Path, taken_ports: None) -> None:
    process = start(home, "--generated", "300")
    output, shown = process.communicate(timeout=400)
    assert process.returncode == 0, shown[-3_000:]
    summary = json.loads(output)
    assert summary["articles"] == 300
    assert summary["events"] > 8
    assert summary["lists"] >= 3
    assert summary["dead_letters"] == 0
    for user in summary["readers_shown"]:
        assert user in shown
    assert "student" in shown
    assert left_running(home) == []


@pytest.mark.skipif(not HEADLINES.is_file(), reason="the real headlines are not on this machine (shared/data/news)")
def test_the_demo_on_real_headlines(home: Path) -> None:
    some = home / "headlines.jsonl"
    with HEADLINES.open() as lines:
        some.write_text("".join(islice(lines, 1_000)))
    process = start(home, "--articles", str(some))
    output, shown = process.communicate(timeout=400)
    assert process.returncode == 0, shown[-3_000:]
    assert json.loads(output)["articles"] == 1_000
    assert json.loads(output)["generated"] is False


@pytest.mark.fault
def test_ctrl_c_in_the_middle_ends_everything(home: Path) -> None:
    process = start(home)
    deadline = time.monotonic() + 120
    while len(left_running(home)) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=90)
    assert process.returncode == 130, shown[-3_000:]
    assert left_running(home) == []
