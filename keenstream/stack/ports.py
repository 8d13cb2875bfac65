"""Ports of 127.0.0.1: which are free, and who holds one that is not."""

import random
import socket
from collections.abc import Iterable

import psutil

from schemas.errors import UsageError

LOCAL = "127.0.0.1"
# Below Linux's ephemeral range (32768 and up): an outgoing connection cannot take a port between choice and use.
_FIRST, _LAST = 20_000, 32_000


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT does not count, as for the servers
        try:
            probe.bind((LOCAL, port))
        except OSError:
            return False
    return True


def free_port(taken: Iterable[int] = ()) -> int:
    """A free port from a random start, so that two runs that choose at the same moment rarely meet."""
    reserved = set(taken)
    start = random.SystemRandom().randrange(_FIRST, _LAST)
    for step in range(_LAST - _FIRST):
        port = _FIRST + (start - _FIRST + step) % (_LAST - _FIRST)
        if port not in reserved and is_free(port):
            return port
    raise UsageError(f"no free port between {_FIRST} and {_LAST}: end the programs that hold them")


def free_ports(count: int, taken: Iterable[int] = ()) -> list[int]:
    pool = PortPool(taken)
    return [pool.free() for _ in range(count)]


class PortPool:
    """Ports given out are not given again, also while nothing listens on them yet."""

    def __init__(self, taken: Iterable[int] = ()) -> None:
        self.taken = set(taken)

    def free(self) -> int:
        port = free_port(self.taken)
        self.taken.add(port)
        return port

    def choose(self, preferred: int, *, fixed: bool, setting: str) -> int:
        """The preferred port, or another one when it is taken; an error when the user fixed it. 0: any."""
        if not preferred:
            return self.free()
        if preferred not in self.taken and is_free(preferred):
            self.taken.add(preferred)
            return preferred
        if not fixed:
            return self.free()
        raise UsageError(
            f"port {preferred} ({setting}) is held by {holder(preferred)}: "
            f"end it, or set {setting} to another port or to 0"
        )


def holder(port: int) -> str:
    """The process that listens on a port, in words; other users' processes may be hidden."""
    for connection in psutil.net_connections(kind="tcp"):
        if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
            return _describe(connection.pid)
    return "a process that this user may not see"


def _describe(pid: int | None) -> str:
    if pid is None:
        return "a process that this user may not see"
    try:
        return f"{psutil.Process(pid).name()} (pid {pid})"
    except psutil.Error:
        return f"pid {pid}"
