"""Sessions that a killed Milvus left in its embedded etcd.

Each part of Milvus registers there under a lease; a new start waits until the old leases ran out (26 s measured, 56 s
with the defaults). The supervisor knows that the old process is gone, so it removes its sessions at once (4 s).
"""

import base64
from collections.abc import Collection

import httpx
import msgspec

from keenstream.stack.ports import LOCAL

_PREFIX = b"by-dev/meta/session/"
_PREFIX_END = b"by-dev/meta/session0"  # etcd ranges are half open; "0" follows "/"


class _Session(msgspec.Struct, rename="pascal"):
    address: str


def drop_stale_sessions(etcd_port: int, own_ports: Collection[int], timeout_seconds: float = 1.0) -> int:
    """Delete the sessions whose address is none of the running server's ports; returns how many."""
    with httpx.Client(base_url=f"http://{LOCAL}:{etcd_port}/v3/kv", timeout=timeout_seconds) as etcd:
        found = etcd.post("/range", json={"key": _text(_PREFIX), "range_end": _text(_PREFIX_END)}).json()
        stale = [pair["key"] for pair in found.get("kvs", []) if _is_stale(base64.b64decode(pair["value"]), own_ports)]
        for key in stale:
            etcd.post("/deleterange", json={"key": key}).raise_for_status()
    return len(stale)


def _is_stale(value: bytes, own_ports: Collection[int]) -> bool:
    try:
        session = msgspec.json.decode(value, type=_Session)
    except msgspec.ValidationError:  # the counter of server ids lives beside them
        return False
    return int(session.address.rpartition(":")[2]) not in own_ports


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
