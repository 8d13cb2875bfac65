"""Apache Kafka, one node in KRaft mode on 127.0.0.1: jars by Maven, format, start, wait for a real answer."""

import base64
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from subprocess import Popen

import msgspec
from kafka import KafkaAdminClient

from keenstream.stack.folders import cache_folder
from keenstream.stack.ports import LOCAL, free_port
from keenstream.stack.process import Command, end, run_once, start, wait_ready
from schemas.errors import Unavailable

POM = Path(__file__).with_name("pom.xml")
START_TIMEOUT_SECONDS = 180.0  # a start takes 3 s alone, and a minute on a core shared with ten others
GRACE_SECONDS = 10.0
LOG = "kafka.log"
PORT_TAKEN = "BindException"

_PROPERTIES = """\
process.roles=broker,controller
node.id={node_id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{local}:{port},CONTROLLER://{local}:{controller_port}
advertised.listeners=PLAINTEXT://{local}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
# internal topics have few partitions, so that the first consumer group is quick
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
min.insync.replicas={in_sync}
group.initial.rebalance.delay.ms=0
# a topic with a partition count that nobody chose breaks Faust's tables: the admin step creates them all
auto.create.topics.enable=false
{properties}
"""


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What differs from the single open node that the laptop's stack runs; tests use it."""

    node_id: int = 1
    voters: Mapping[int, int] = {}  # of the whole cluster: node ids to controller ports; empty = this node alone
    cluster_id: str = ""  # the same for all nodes; empty = a new one
    replicas: int = 1  # of internal topics
    properties: str = ""  # further lines; a later line stands
    scram_users: tuple[str, ...] = ()  # made by the format, such as SCRAM-SHA-512=[name=ann,password=secret]


class KafkaServer(msgspec.Struct, frozen=True, kw_only=True):
    """A broker that answers."""

    bootstrap: str
    pid: int
    log: Path


def ensure_jars(folder: Path | None = None) -> Path:
    """The folder of the broker's jars, fetched by Maven once for each version of the pom."""
    jars = folder or cache_folder() / f"kafka-jars-{_pom_mark()}"
    if jars.exists():
        return jars
    jars.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=jars.parent, prefix="jars-") as scratch:
        fetched = Path(scratch) / "jars"
        fetch = ["dependency:copy-dependencies", f"-DoutputDirectory={fetched}"]
        run_once(["mvn", "-q", "-B", "-f", str(POM), *fetch], "fetching the Kafka jars")
        try:
            fetched.rename(jars)  # whole or not at all: a Ctrl-C leaves no half-filled folder
        except OSError:
            if not jars.exists():  # another run that fetched at the same time may have been first
                raise
    return jars


def _pom_mark() -> str:
    return uuid.uuid5(uuid.NAMESPACE_OID, POM.read_text("utf-8")).hex[:8]


def new_cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def format_storage(
    folder: Path, jars: Path, port: int, controller_port: int, settings: NodeSettings | None = None
) -> Path:
    """Write server.properties for these ports and format the data folder if it is new."""
    settings = settings or NodeSettings()
    folder.mkdir(parents=True, exist_ok=True)
    properties, data = folder / "server.properties", folder / "data"
    properties.write_text(_properties(port, controller_port, data.absolute(), settings), "utf-8")
    if not (folder / "formatted").exists():
        shutil.rmtree(data, ignore_errors=True)  # left by a format that was cut short
        java = ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*", "kafka.tools.StorageTool"]
        # with the equals sign, because an id may begin with a dash
        options = [f"--cluster-id={settings.cluster_id or new_cluster_id()}", "-c", str(properties)]
        users = [part for user in settings.scram_users for part in ("--add-scram", user)]
        run_once([*java, "format", *options, *users], "formatting Kafka's storage")
        (folder / "formatted").touch()
    return properties


def _properties(port: int, controller_port: int, data: Path, settings: NodeSettings) -> str:
    voters = settings.voters or {settings.node_id: controller_port}
    return _PROPERTIES.format(
        local=LOCAL,
        port=port,
        controller_port=controller_port,
        data=data,
        node_id=settings.node_id,
        voters=",".join(f"{node}@{LOCAL}:{at}" for node, at in voters.items()),
        replicas=settings.replicas,
        in_sync=max(1, settings.replicas - 1),
        properties=settings.properties,
    )


def kafka_command(
    folder: Path,
    jars: Path,
    port: int,
    controller_port: int,
    heap_megabytes: int = 512,
    settings: NodeSettings | None = None,
) -> Command:
    """Prepare the folder and return what starts the broker."""
    folder = folder.absolute()
    properties = format_storage(folder, jars, port, controller_port, settings)
    java = ("java", f"-Xmx{heap_megabytes}m", "-XX:+UseSerialGC", "-Djava.net.preferIPv4Stack=true")
    return Command(argv=(*java, "-cp", f"{jars}/*", "kafka.Kafka", str(properties)), folder=str(folder))


def probe_kafka(bootstrap: str, timeout_ms: int = 5_000) -> None:
    """A real request: raises unless the broker lists its topics."""
    host, _, port = bootstrap.rpartition(":")
    socket.create_connection((host, int(port)), timeout=timeout_ms / 1000).close()  # the client itself waits in vain
    admin = KafkaAdminClient(
        bootstrap_servers=bootstrap, request_timeout_ms=timeout_ms, bootstrap_timeout_ms=timeout_ms
    )
    try:
        admin.list_topics()
    finally:
        admin.close()


@contextmanager
def kafka_server(folder: Path | str, port: int | None = None, jars: Path | None = None) -> Iterator[KafkaServer]:
    """A broker for the length of a `with`; the same folder again (and the same port, if wanted) keeps its data."""
    folder = Path(folder).absolute()
    process, bootstrap = _started(folder, port, jars or ensure_jars())
    try:
        yield KafkaServer(bootstrap=bootstrap, pid=process.pid, log=folder / LOG)
    finally:
        end(process, GRACE_SECONDS)


def _started(folder: Path, port: int | None, jars: Path, attempts: int = 3) -> "tuple[Popen[bytes], str]":
    """A broker that answers. Somebody may take a free port between its choice and its use: then others are chosen."""
    broker_port = port or free_port()
    bootstrap, log = f"{LOCAL}:{broker_port}", folder / LOG
    log.unlink(missing_ok=True)
    process = start(kafka_command(folder, jars, broker_port, free_port([broker_port])), log)
    try:
        wait_ready("kafka", process, partial(probe_kafka, bootstrap), log, START_TIMEOUT_SECONDS)
        return process, bootstrap
    except BaseException as error:
        end(process, GRACE_SECONDS)
        if isinstance(error, Unavailable) and attempts > 1 and PORT_TAKEN in log.read_text():
            return _started(folder, port, jars, attempts - 1)
        raise
