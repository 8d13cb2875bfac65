"""Milvus standalone from its wheel: every port chosen by us, a real query before it counts as ready.

`milvus.MilvusServer` is not used: its embedded etcd always takes 2379 and 2380 (here it reads a file of its own), it
starts the server in our process group, and its `stop` waits on a SIGTERM that this version does not answer.
"""

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from keenstream.stack.folders import cache_folder
from keenstream.stack.milvus_sessions import drop_stale_sessions
from keenstream.stack.ports import LOCAL, free_port, free_ports
from keenstream.stack.process import Command, end, start, wait_ready
from schemas.errors import Unavailable

START_TIMEOUT_SECONDS = 180.0
GRACE_SECONDS = 0.0  # SIGTERM can hang for more than 40 s and gives back nothing; SIGKILL loses no acknowledged row

_ETCD = """\
name: default
listen-client-urls: http://{local}:{client}
advertise-client-urls: http://{local}:{client}
listen-peer-urls: http://{local}:{peer}
initial-advertise-peer-urls: http://{local}:{peer}
initial-cluster: default=http://{local}:{peer}
"""
_ON_LOOPBACK = (sys.executable, "-I", str(Path(__file__).with_name("loopback.py")))
_ROLES = ("rootCoord", "proxy", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode")
_SETTINGS: Mapping[str, str | int] = {
    **{f"{role}.ip": LOCAL for role in _ROLES},
    "log.level": "warn",  # at `info` each request writes lines, on the path that readers wait for
    "log.file.rootPath": "",  # one log: what it prints
    "common.session.ttl": 10,  # seconds
}


class MilvusPorts(msgspec.Struct, frozen=True, kw_only=True):
    """All ports of one run; names as in the wheel's template of milvus.yaml."""

    proxy_port: int
    proxy_internal_port: int
    root_coord_port: int
    query_coord_port: int
    query_node_port: int
    index_coord_port: int
    index_node_port: int
    data_coord_port: int
    data_node_port: int
    etcd_port: int
    etcd_peer_port: int
    metrics_port: int

    @classmethod
    def around(cls, proxy_port: int, taken: Iterable[int] = ()) -> "MilvusPorts":
        """This port for clients, free ones for the rest, new ones at each start."""
        names = [name for name in cls.__struct_fields__ if name != "proxy_port"]
        chosen = free_ports(len(names), taken=[proxy_port, *taken])
        return cls(proxy_port=proxy_port, **dict(zip(names, chosen, strict=True)))


class MilvusServer(msgspec.Struct, frozen=True, kw_only=True):
    """A Milvus that answers."""

    uri: str
    pid: int
    log: Path


def ensure_binaries(folder: Path | None = None) -> Path:
    """The server and its libraries, unpacked from the wheel once (4 s, 250 MB)."""
    import milvus

    binaries = folder or cache_folder() / f"milvus-{milvus.__version__}"
    if binaries.exists():
        return binaries
    binaries.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=binaries.parent, prefix="milvus-") as scratch:
        milvus._initialize_data_files(scratch)
        try:
            (Path(scratch) / "bin").rename(binaries)  # whole or not at all
        except OSError:
            if not binaries.exists():
                raise
    return binaries


def write_configuration(folder: Path, ports: MilvusPorts, settings: Mapping[str, str | int]) -> None:
    """Write milvus.yaml, the embedded etcd's file, and the ports for the probe."""
    from milvus import MilvusServerConfig

    configuration = MilvusServerConfig(data_dir=str(folder))
    configuration.resolve_storage()
    for name, port in msgspec.structs.asdict(ports).items():
        if name in configuration.configurable_items:
            configuration.set(name, port)
    for key, value in {**_SETTINGS, **settings}.items():
        configuration.set(key, value)
    configuration.write_config()
    etcd = _ETCD.format(local=LOCAL, client=ports.etcd_port, peer=ports.etcd_peer_port)
    (folder / "configs" / "etcd.yaml").write_text(etcd, "utf-8")
    (folder / "ports.json").write_bytes(msgspec.json.encode(ports))


def ports_of(folder: Path) -> frozenset[int]:
    """The ports of the latest start in this folder; none before the first."""
    try:
        ports = msgspec.json.decode((folder / "ports.json").read_bytes(), type=MilvusPorts)
    except FileNotFoundError:
        return frozenset()
    return frozenset(msgspec.structs.asdict(ports).values())


def milvus_command(
    folder: Path,
    binaries: Path,
    port: int,
    settings: Mapping[str, str | int] | None = None,
    niceness: int = 0,
    taken: Iterable[int] = (),
) -> Command:
    """Prepare the folder and return what starts the server; `settings` are dotted names of milvus.yaml."""
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    # A part on a dead part's port would pass for it: to its peers, and to `drop_stale_sessions`.
    ports = MilvusPorts.around(port, [*taken, *ports_of(folder)])
    write_configuration(folder, ports, settings or {})
    milvus = (str(binaries / "milvus"), "run", "standalone")
    library_path = os.pathsep.join(filter(None, [str(binaries), os.environ.get("LD_LIBRARY_PATH")]))
    return Command(
        # its libraries are set behind our own Python, which must not load them
        argv=(*_ON_LOOPBACK, "/usr/bin/env", f"LD_LIBRARY_PATH={library_path}", *milvus),
        environment={
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": str(ports.metrics_port),
            "MILVUS_RUN_DIR": str(folder / "run"),
            "ETCD_CONFIG_PATH": str(folder / "configs" / "etcd.yaml"),
        },
        folder=str(folder),
        niceness=niceness,
    )


def probe_milvus(uri: str, timeout_seconds: float = 5.0, wait_for_loading: bool = False) -> None:
    """A row of each loaded collection: `/healthz` stays silent for minutes after a kill while queries already work.

    A collection that is loading is waited for after a start alone: later somebody is just creating it.
    """
    from pymilvus import MilvusClient  # a second and more: the servers start meanwhile

    client = MilvusClient(uri, timeout=timeout_seconds)
    try:
        for collection in client.list_collections(timeout=timeout_seconds):
            _probe_collection(client, collection, timeout_seconds, wait_for_loading)
    finally:
        client.close()


def _probe_collection(client: Any, collection: str, timeout_seconds: float, wait_for_loading: bool) -> None:
    state = client.get_load_state(collection, timeout=timeout_seconds)["state"].name
    if state == "Loading" and wait_for_loading:
        raise Unavailable(f"Milvus is still loading the collection {collection}")
    if state == "Loaded":
        client.query(collection, filter="", limit=1, timeout=timeout_seconds)


def probe_starting(uri: str, folder: Path) -> None:
    """The probe while a server of this folder starts: first rid its etcd of the sessions of a run that was killed."""
    ports = msgspec.json.decode((folder / "ports.json").read_bytes(), type=MilvusPorts)
    drop_stale_sessions(ports.etcd_port, ports_of(folder))
    probe_milvus(uri, wait_for_loading=True)


@contextmanager
def milvus_server(
    folder: Path | str, port: int | None = None, settings: Mapping[str, str | int] | None = None
) -> Iterator[MilvusServer]:
    """A Milvus for the length of a `with`; the same folder again keeps its data."""
    folder = Path(folder).absolute()
    port = port or free_port()
    command = milvus_command(folder, ensure_binaries(), port, settings)
    uri, log = f"http://{LOCAL}:{port}", folder / "milvus.log"
    process = start(command, log)
    try:
        wait_ready("milvus", process, lambda: probe_starting(uri, folder), log, START_TIMEOUT_SECONDS)
        yield MilvusServer(uri=uri, pid=process.pid, log=log)
    finally:
        end(process, GRACE_SECONDS)
