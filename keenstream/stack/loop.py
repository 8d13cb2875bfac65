"""Our own processes as parts of a stack: the set-up task, the workers and the API."""

import sys

from keenstream.stack.options import WorkerSpec
from schemas.config import Config
from schemas.names import App

GROUPS = {
    "profiles": App.PROFILES,
    "signals": App.SIGNALS,
    "interests": App.INTERESTS,
    "articles": App.ARTICLES,
    "matches": App.MATCHES,
    "archive": App.ARCHIVE,
}
NEEDS = {
    "profiles": (),
    "signals": ("triton",),
    "interests": ("triton",),
    "articles": ("triton",),
    "matches": (),
    "archive": (),
}


def metrics_variable(worker: str) -> str:
    """The environment variable that tells a worker its port for /metrics."""
    return f"KEENSTREAM_METRICS_PORT_{worker.upper()}"


def loop_workers(config: Config, *, with_models: bool = True) -> tuple[WorkerSpec, ...]:
    """Everything of ours that runs beside Kafka, Triton and Milvus; without models, what can do without Triton."""
    setup = WorkerSpec(name="prepare", argv=_argv("prepare"), depends_on=("kafka", "milvus"), once=True)
    workers = [_worker(name) for name, needs in NEEDS.items() if with_models or "triton" not in needs]
    return (setup, *workers, _api(config))


def _worker(name: str) -> WorkerSpec:
    return WorkerSpec(
        name=name,
        argv=_argv("worker", name),
        depends_on=("prepare", *NEEDS[name]),
        port=0,
        port_variable=metrics_variable(name),
        ready_group=GROUPS[name],
    )


def _api(config: Config) -> WorkerSpec:
    return WorkerSpec(
        name="api",
        argv=_argv("worker", "api"),
        depends_on=("prepare",),
        port=config.api.port,
        port_variable="KEENSTREAM_API_PORT",
        ready_url="http://127.0.0.1:{port}/healthz",
    )


def _argv(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "keenstream.cli", *arguments)
