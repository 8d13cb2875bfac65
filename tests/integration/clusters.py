"""A real Kafka cluster of three nodes on this machine, any of which a test may kill."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from subprocess import Popen

import msgspec

from keenstream.stack.kafka import NodeSettings, ensure_jars, kafka_command, new_cluster_id, probe_kafka
from keenstream.stack.ports import LOCAL, free_ports
from keenstream.stack.process import end, start, wait_ready

NODES = 3
HEAP_MEGABYTES = 256
# a dead broker's partitions get new leaders after this time
_PROPERTIES = "broker.session.timeout.ms=6000"


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """Three brokers that answer; topics are best made with three replicas, of which two must have each record."""

    bootstrap: str
    processes: Sequence["Popen[bytes]"]

    def kill(self, node: int) -> None:
        self.processes[node].kill()
        self.processes[node].wait()


@contextmanager
def kafka_cluster(folder: Path) -> Iterator[Cluster]:
    ports = free_ports(2 * NODES)
    brokers, controllers = ports[:NODES], ports[NODES:]
    voters = {number + 1: port for number, port in enumerate(controllers)}
    processes: list[Popen[bytes]] = []
    cluster_id, jars = new_cluster_id(), ensure_jars()
    try:
        for number in range(NODES):
            settings = NodeSettings(
                node_id=number + 1, voters=voters, cluster_id=cluster_id, replicas=NODES, properties=_PROPERTIES
            )
            node = folder / f"node-{number + 1}"
            command = kafka_command(node, jars, brokers[number], controllers[number], HEAP_MEGABYTES, settings)
            processes.append(start(command, node / "kafka.log"))
        for number, process in enumerate(processes):
            log = folder / f"node-{number + 1}" / "kafka.log"
            wait_ready("kafka", process, partial(probe_kafka, f"{LOCAL}:{brokers[number]}"), log, 120.0)
        yield Cluster(bootstrap=",".join(f"{LOCAL}:{port}" for port in brokers), processes=processes)
    finally:
        for process in processes:
            process.kill()  # nothing of it is kept
        for process in processes:
            end(process, 10.0)
