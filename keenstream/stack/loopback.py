"""Run a server that can only listen on every interface, and let it listen on 127.0.0.1 instead.

`python -m keenstream.stack.loopback PROGRAM ARGUMENTS...` — for Milvus 2.3, which hard-codes its listeners' address.
The kernel reports each bind(2) of the program to us (seccomp user notification, Linux 5.6 and newer) and we bind the
socket on its behalf; every other system call goes straight through. Where the kernel does not allow that, the program
runs as it is and says so in its log.
"""

import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn


class _Machine(NamedTuple):
    architecture: int  # as the kernel names it to a filter
    bind: int
    seccomp: int


_MACHINES = {
    "x86_64": _Machine(architecture=0xC000003E, bind=49, seccomp=317),
    "aarch64": _Machine(architecture=0xC00000B7, bind=200, seccomp=277),
}
_PIDFD_GETFD = 438  # the same number everywhere
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_SET_MODE_FILTER = 1
_FLAGS = 8 | 4  # a descriptor to listen on; and no mitigation that slows the program down (it does not confine it)
_RET_ALLOW, _RET_USER_NOTIF = 0x7FFF0000, 0x7FC00000
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NOTIF_RECV, _NOTIF_SEND = 0xC0502100, 0xC0182101
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # id, thread, flags, number, architecture, instruction, arguments
_RESPONSE = struct.Struct("=QqiI")  # id, value, error, flags

_libc = ctypes.CDLL(None, use_errno=True)


def local_address(raw: bytes) -> tuple[int, tuple[str, int]] | None:
    """Family and address to bind to instead of this sockaddr; None when it is not an address of the internet."""
    family = int.from_bytes(raw[:2], sys.byteorder)
    port = int.from_bytes(raw[2:4], "big")
    if family == socket.AF_INET:
        return family, ("127.0.0.1", port)
    if family == socket.AF_INET6:
        return family, ("::ffff:127.0.0.1", port)  # Go's sockets take both families: this one is IPv4's loopback
    return None


def main(argv: Sequence[str]) -> int:
    machine = _MACHINES.get(platform.machine())
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        _become(argv, machine, theirs)
    theirs.close()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: os.kill(child, received))
    _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    if descriptors:
        _answer_binds(descriptors[0], child)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _become(argv: Sequence[str], machine: _Machine | None, channel: socket.socket) -> NoReturn:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    listener = _watch_binds(machine) if machine else -1
    if listener < 0:
        sys.stderr.write("this kernel does not let us keep the program on 127.0.0.1: it listens on every interface\n")
        channel.send(b"-")
    else:
        socket.send_fds(channel, [b"+"], [listener])
        os.close(listener)
    channel.close()
    os.execv(argv[0], list(argv))


def _watch_binds(machine: _Machine) -> int:
    """Install the filter on this process; the descriptor that its bind calls are reported to, or -1."""
    program = b"".join(
        struct.pack("=HBBI", *line)
        for line in (
            (_LOAD, 0, 0, 4),  # the architecture: numbers of another one mean other calls
            (_JUMP_EQUAL, 0, 3, machine.architecture),
            (_LOAD, 0, 0, 0),  # the number of the call
            (_JUMP_EQUAL, 0, 1, machine.bind),
            (_RETURN, 0, 0, _RET_USER_NOTIF),
            (_RETURN, 0, 0, _RET_ALLOW),
        )
    )
    lines = ctypes.create_string_buffer(program)
    description = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(lines)))
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return int(_libc.syscall(machine.seccomp, _SET_MODE_FILTER, _FLAGS, description))


def _answer_binds(listener: int, child: int) -> None:
    """Bind on the child's behalf until it ends."""
    handle = os.pidfd_open(child)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(handle, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if ready.get(listener, 0) & select.POLLIN:
            _answer(listener, handle, child)
        elif handle in ready or listener in ready:  # ended, or its last thread did
            return


def _answer(listener: int, handle: int, child: int) -> None:
    notification = bytearray(_NOTIFICATION.size)
    try:
        fcntl.ioctl(listener, _NOTIF_RECV, notification)
        call, *_, descriptor, address, length, _, _, _ = _NOTIFICATION.unpack(notification)
        failure = _bind(handle, child, descriptor, address, length)
        fcntl.ioctl(listener, _NOTIF_SEND, _RESPONSE.pack(call, 0, -failure, 0))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINTR):  # the caller was ended or interrupted meanwhile
            raise


def _bind(handle: int, child: int, descriptor: int, address: int, length: int) -> int:
    """The errno of binding the child's socket; 0: done."""
    try:
        with open(f"/proc/{child}/mem", "rb", buffering=0) as memory:
            raw = os.pread(memory.fileno(), min(length, 128), address)
        copy = _libc.syscall(_PIDFD_GETFD, handle, descriptor, 0)
        if copy < 0:
            return ctypes.get_errno()
        with socket.socket(fileno=copy) as listening:
            return _bind_copy(listening, raw)
    except OSError as error:
        return error.errno or errno.EIO


def _bind_copy(listening: socket.socket, raw: bytes) -> int:
    local = local_address(raw)
    if local is not None:
        listening.bind(local[1])
        return 0
    if _libc.bind(listening.fileno(), raw, len(raw)) == 0:  # netlink and the like, as asked for
        return 0
    return ctypes.get_errno()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
