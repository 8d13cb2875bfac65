import base64
import os
import signal
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest
from pymilvus import MilvusClient

from keenstream.stack.milvus import MilvusPorts, MilvusServer, milvus_command, milvus_server, ports_of, probe_milvus
from keenstream.stack.milvus_sessions import drop_stale_sessions
from keenstream.stack.process import group_members
from tests.keenstream.stack.programs import gone

pytestmark = pytest.mark.stack


def test_several_run_on_one_host(milvus: str, tmp_path: Path) -> None:
    with milvus_server(tmp_path) as other:
        first, second = MilvusClient(milvus), MilvusClient(other.uri)
        second.create_collection("only_here", dimension=4)
        assert "only_here" not in first.list_collections()
        first.close()
        second.close()
    assert gone(other.pid)


def test_every_listener_is_on_this_machine_only(milvus_node: MilvusServer) -> None:
    found = [
        connection.laddr
        for process in group_members(milvus_node.pid)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len({address.port for address in found}) >= 10  # etcd's two, the metrics, and those of its roles
    assert {address.ip for address in found} <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_sessions_of_a_dead_run_are_dropped_and_those_of_the_living_stay(milvus_node: MilvusServer) -> None:
    ports = msgspec.json.decode((milvus_node.log.parent / "ports.json").read_bytes(), type=MilvusPorts)
    own = set(msgspec.structs.asdict(ports).values())
    stale = {"key": b"by-dev/meta/session/querynode-99", "value": b'{"ServerID":99,"Address":"127.0.0.1:1"}'}
    body = {name: base64.b64encode(raw).decode() for name, raw in stale.items()}
    httpx.post(f"http://127.0.0.1:{ports.etcd_port}/v3/kv/put", json=body).raise_for_status()
    assert drop_stale_sessions(ports.etcd_port, own) == 1
    assert drop_stale_sessions(ports.etcd_port, own) == 0
    probe_milvus(milvus_node.uri)


def test_no_part_starts_on_a_port_of_the_run_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.SystemRandom.randrange", lambda self, first, last: first)  # the same ones, if allowed
    starts = []
    for _ in range(2):
        milvus_command(tmp_path, tmp_path, port=19_530)
        starts.append(ports_of(tmp_path))
    assert starts[0] & starts[1] == {19_530}


def test_rows_outlive_a_kill_and_the_next_start_answers_for_them(tmp_path: Path) -> None:
    with milvus_server(tmp_path) as server:
        client = MilvusClient(server.uri)
        client.create_collection("kept", dimension=4)
        client.insert("kept", [{"id": number, "vector": [1.0, 2.0, 3.0, float(number)]} for number in range(10)])
        client.close()
        os.kill(server.pid, signal.SIGKILL)
    with milvus_server(tmp_path) as again:
        client = MilvusClient(again.uri)
        assert client.query("kept", "id >= 0", ["count(*)"], consistency_level="Strong")[0]["count(*)"] == 10
        client.close()
