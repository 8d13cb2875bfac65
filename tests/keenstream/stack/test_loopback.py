import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from keenstream.stack import loopback
from keenstream.stack.loopback import local_address

PROGRAM = str(Path(loopback.__file__))


def run(script: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-I", PROGRAM, sys.executable, "-c", f"import socket\n{script}"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("family", "asked", "bound"),
    [
        ("AF_INET", "0.0.0.0", "127.0.0.1"),
        ("AF_INET6", "::", "::ffff:127.0.0.1"),
        ("AF_INET", "127.0.0.1", "127.0.0.1"),
    ],
)
def test_a_listener_on_every_interface_ends_up_on_this_machine_only(family: str, asked: str, bound: str) -> None:
    script = (
        f"s = socket.socket(socket.{family})\n"
        f"if s.family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)\n"
        f"s.bind(({asked!r}, 0)); s.listen(); print(s.getsockname()[0])"
    )
    assert run(script).stdout.strip() == bound


def test_a_taken_port_is_still_an_error_of_the_program() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run(f"socket.socket().bind(('', {taken.getsockname()[1]}))")
    assert done.returncode == 1
    assert "Address already in use" in done.stderr


def test_a_listener_in_a_thread_and_a_local_socket_work_as_before(tmp_path: Path) -> None:
    script = (
        "import threading\n"
        "def listen():\n  s = socket.socket(); s.bind(('', 0)); print(s.getsockname()[0], flush=True)\n"
        "t = threading.Thread(target=listen); t.start(); t.join()\n"
        f"u = socket.socket(socket.AF_UNIX); u.bind({str(tmp_path / 'socket')!r}); print(u.getsockname())"
    )
    assert run(script).stdout.split() == ["127.0.0.1", str(tmp_path / "socket")]


def test_the_exit_code_is_the_programs_own() -> None:
    assert run("raise SystemExit(7)").returncode == 7
    assert run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)").returncode != 0


def test_addresses_of_other_families_are_left_alone() -> None:
    assert local_address(struct.pack("=H", socket.AF_UNIX) + b"/run/x") is None
    assert local_address(struct.pack("=H", socket.AF_INET) + (8080).to_bytes(2, "big") + b"\0" * 12) == (
        socket.AF_INET,
        ("127.0.0.1", 8080),
    )
