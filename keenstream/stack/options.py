"""What a stack runs, as plain data: written by the command that starts it, read by the supervising process."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

TRITON_NICENESS = 10  # readers wait for the API and Milvus, never for a model


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One of our own processes: a worker, the API, or (`once`) a task that must exit with 0 before others start."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = {}
    depends_on: tuple[str, ...] = ()
    port: int | None = None  # a preferred port, moved when it is taken; 0: any
    port_variable: str = ""  # the environment variable that tells the process its port
    ready_url: str = ""  # answers 200 when the process works; may contain {port}
    ready_group: str = ""  # or: a Kafka consumer group that has a member and is stable
    once: bool = False
    niceness: int = 0
    grace_seconds: float = 15.0
    start_timeout_seconds: float = 90.0


class StackOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to run. Without models Triton is left out; the repository is a folder that is already assembled."""

    kafka: bool = True
    milvus: bool = True
    repository: str = ""
    models: tuple[str, ...] = ()
    triton_niceness: int = TRITON_NICENESS
    kafka_heap_megabytes: int = 512
    milvus_settings: Mapping[str, str | int] = {}
    workers: tuple[WorkerSpec, ...] = ()


def options_path(home: Path) -> Path:
    return home / "stack" / "options.json"


def triton_folder(home: Path) -> Path:
    return home / "triton"
