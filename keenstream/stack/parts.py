"""The parts of a stack from the settings: ports chosen, folders laid out, probes bound.

A part whose address is not on this machine is somebody else's to run, and is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec
from kafka import KafkaAdminClient

from keenstream.stack.kafka import ensure_jars, kafka_command, probe_kafka
from keenstream.stack.milvus import ensure_binaries, milvus_command, probe_milvus, probe_starting
from keenstream.stack.options import StackOptions, WorkerSpec, triton_folder
from keenstream.stack.part import Part
from keenstream.stack.ports import LOCAL, PortPool, free_port
from keenstream.stack.process import Command
from keenstream.stack.shared_memory import clean_shared_memory
from keenstream.stack.triton import TritonPorts, ensure_backends, revive_models, triton_command
from keenstream.stack.triton_probe import probe_triton
from schemas.config import Config, Kafka, environment_of
from schemas.errors import Unavailable
from stream.kafka_access import Broker, kafka_python_options

_LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")
_DEFAULTS = Config()


class StackParts(msgspec.Struct, frozen=True, kw_only=True):
    parts: tuple[Part, ...]
    config: Config  # the settings with the addresses that were chosen
    environment: Mapping[str, str]


def build_parts(options: StackOptions, config: Config, home: Path) -> StackParts:
    """Choose every port and describe every part; nothing is started yet."""
    pool = PortPool()
    servers: list[Part] = []
    archive = msgspec.structs.replace(config.archive, folder=str(home / config.archive.folder))
    config = msgspec.structs.replace(config, archive=archive)  # beside the topics that it is of
    if options.kafka and _is_local(config.kafka.bootstrap):
        part, bootstrap = _kafka(options, config, pool, home / "kafka")
        config = msgspec.structs.replace(config, kafka=msgspec.structs.replace(config.kafka, bootstrap=bootstrap))
        servers.append(part)
    if options.milvus and _is_local(config.milvus.uri):
        part, uri = _milvus(options, config, pool, home / "milvus")
        config = msgspec.structs.replace(config, milvus=msgspec.structs.replace(config.milvus, uri=uri))
        servers.append(part)
    if options.models and _is_local(config.triton.grpc_address):
        part, grpc = _triton(options, config, pool, triton_folder(home))
        config = msgspec.structs.replace(config, triton=msgspec.structs.replace(config.triton, grpc_address=grpc))
        servers.append(part)
    return _with_workers(options, config, pool, servers)


def _with_workers(options: StackOptions, config: Config, pool: PortPool, servers: list[Part]) -> StackParts:
    environment = environment_of(config)
    workers = []
    for spec in options.workers:
        port = None if spec.port is None else pool.choose(spec.port, fixed=False, setting=spec.port_variable)
        if port and spec.port_variable:
            environment[spec.port_variable] = str(port)  # the others must find it too
        workers.append((spec, port))
    parts = [_worker(spec, port, environment, config.kafka) for spec, port in workers]
    return StackParts(parts=(*servers, *parts), config=config, environment=environment)


def _is_local(address: str) -> bool:
    return _host_and_port(address)[0] in _LOCAL_NAMES


def _host_and_port(address: str) -> tuple[str, int]:
    split = urlsplit(address if "://" in address else f"//{address.split(',')[0]}")
    return split.hostname or "", split.port or 0


def _port(pool: PortPool, address: str, default: str, setting: str) -> int:
    """A port that differs from the default was fixed by the user: it is not moved silently."""
    return pool.choose(_host_and_port(address)[1], fixed=address != default, setting=setting)


def _kafka(options: StackOptions, config: Config, pool: PortPool, folder: Path) -> tuple[Part, str]:
    port = _port(pool, config.kafka.bootstrap, _DEFAULTS.kafka.bootstrap, "kafka.bootstrap")
    bootstrap = f"{LOCAL}:{port}"

    def prepare() -> Command:
        return kafka_command(folder, ensure_jars(), port, free_port(pool.taken), options.kafka_heap_megabytes)

    probe = partial(probe_kafka, bootstrap)
    return Part(name="kafka", prepare=prepare, probe=probe, address=bootstrap, grace_seconds=10.0), bootstrap


def _milvus(options: StackOptions, config: Config, pool: PortPool, folder: Path) -> tuple[Part, str]:
    port = _port(pool, config.milvus.uri, _DEFAULTS.milvus.uri, "milvus.uri")
    uri = f"http://{LOCAL}:{port}"
    part = Part(
        name="milvus",
        prepare=lambda: milvus_command(folder, ensure_binaries(), port, options.milvus_settings, taken=pool.taken),
        probe=partial(probe_milvus, uri),
        probe_starting=partial(probe_starting, uri, folder),
        address=uri,
        grace_seconds=0.0,
    )
    return part, uri


def _triton(options: StackOptions, config: Config, pool: PortPool, folder: Path) -> tuple[Part, str]:
    port = _port(pool, config.triton.grpc_address, _DEFAULTS.triton.grpc_address, "triton.grpc_address")
    ports = TritonPorts(grpc=port, http=pool.free(), metrics=pool.free())
    grpc, repository, models = f"{LOCAL}:{port}", Path(options.repository), options.models
    ensure_backends()
    part = Part(
        name="triton",
        prepare=lambda: triton_command(folder, repository, models, ports, options.triton_niceness),
        probe=partial(probe_triton, grpc, models),
        repair=partial(revive_models, grpc, repository, models),
        clean=partial(clean_shared_memory, folder),
        address=grpc,
        start_timeout_seconds=180.0,
    )
    return part, grpc


def _worker(spec: WorkerSpec, port: int | None, environment: Mapping[str, str], kafka: Kafka) -> Part:
    command = Command(argv=spec.argv, environment={**environment, **spec.environment}, niceness=spec.niceness)
    return Part(
        name=spec.name,
        prepare=lambda: command,
        probe=None if spec.once else _worker_probe(spec, port, kafka),
        depends_on=spec.depends_on,
        address=f"{LOCAL}:{port}" if port else "",
        grace_seconds=spec.grace_seconds,
        start_timeout_seconds=spec.start_timeout_seconds,
        probe_interval_seconds=15.0 if spec.ready_group else 5.0,  # asking for a group costs a new client each time
    )


def _worker_probe(spec: WorkerSpec, port: int | None, kafka: Kafka) -> Callable[[], None]:
    if spec.ready_url:
        return partial(probe_url, spec.ready_url.format(port=port))
    if spec.ready_group:
        return partial(probe_group, kafka, spec.ready_group)
    return lambda: None  # the supervisor itself sees when the process ends


def probe_url(url: str, timeout_seconds: float = 5.0) -> None:
    answer = httpx.get(url, timeout=timeout_seconds)
    if answer.status_code != httpx.codes.OK:
        raise Unavailable(f"{url} answers {answer.status_code}: {answer.text[:200]}")


def probe_group(broker: Broker, group: str) -> None:
    options = kafka_python_options(broker)
    admin = KafkaAdminClient(**options, request_timeout_ms=5_000, bootstrap_timeout_ms=5_000)
    try:
        state, members = _group_state(admin.describe_groups([group]), group)
    finally:
        admin.close()
    if state != "Stable" or not members:
        raise Unavailable(f"the consumer group {group} is {state} with {members} members")


def _group_state(described: Mapping[str, Mapping[str, object]], group: str) -> tuple[object, int]:
    found = described[group]
    members = found.get("members")
    return found.get("group_state"), len(members) if isinstance(members, Sequence) else 0
