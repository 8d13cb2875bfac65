"""Which Beam runner does the work. The default is FnApiRunner by its name: `DirectRunner` would look for Prism first.

Prism: `--runner PortableRunner --beam --job_endpoint=localhost:8073 --beam --environment_type=LOOPBACK`.
Dask: `--runner DaskRunner --beam --dask_client_address=tcp://...`.
"""

import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import apache_beam as beam
import msgspec
import psutil
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
from apache_beam.runners.portability.portable_runner import JobServiceHandle

from schemas.errors import UsageError

LOCAL: Final = "FnApiRunner"
_WORKER: Final = f"trap '' INT; exec {shlex.quote(sys.executable)} -m offline.experiments.worker".encode()
_BY_NAME: Final = {"DaskRunner": "apache_beam.runners.dask.dask_runner.DaskRunner"}  # Beam does not know it by name


class RunnerSettings(msgspec.Struct, frozen=True, kw_only=True):
    runner: str = LOCAL
    workers: int = 1  # processes of the local runner; others have their own options
    options: tuple[str, ...] = ()  # Beam's, as on its command line


class LocalRunner(FnApiRunner):  # type: ignore[misc]  # Beam is untyped here
    """Its worker processes are quiet, and leave Ctrl-C to this one (`ending_workers`): each would print its own."""

    def run_via_runner_api(self, pipeline_proto: Any, options: PipelineOptions) -> Any:
        for environment in pipeline_proto.components.environments.values():
            if environment.urn == python_urns.SUBPROCESS_SDK:  # its payload is a line for the shell
                environment.payload = _WORKER
        return super().run_via_runner_api(pipeline_proto, options)


def new_pipeline(settings: RunnerSettings) -> beam.Pipeline:
    """An empty pipeline on the runner of `settings`. Raises UsageError when Beam does not know it."""
    options = pipeline_options(settings)
    runner = LocalRunner(provision_info=_told(options)) if settings.runner == LOCAL else None  # others by their names
    try:
        return beam.Pipeline(runner=runner, options=options)
    except ValueError as error:  # a runner that Beam does not know, an option that another one needs
        raise UsageError(f"--runner {settings.runner}: {error}") from error


def _told(options: PipelineOptions) -> ExtendedProvisionInfo:
    """What workers are told of the options: by itself this runner tells nothing, so each logs at its own level."""
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options(drop_default=True))
    return ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded))


@contextmanager
def ending_workers() -> Iterator[None]:
    """A Ctrl-C within ends the worker processes first: Beam would wait for them, and they for Beam."""
    if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
        yield
        return
    tell = threading.excepthook

    def end(number: int, frame: object) -> None:
        threading.excepthook = lambda failed: None  # Beam's threads tell that their worker is gone
        for child in psutil.Process().children():
            child.kill()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        threading.excepthook = tell


def pipeline_options(settings: RunnerSettings) -> PipelineOptions:
    return PipelineOptions(_arguments(settings))


def _arguments(settings: RunnerSettings) -> Sequence[str]:
    found = [f"--runner={_BY_NAME.get(settings.runner, settings.runner)}"]
    if settings.runner == LOCAL and settings.workers > 1:
        found += ["--direct_running_mode=multi_processing", f"--direct_num_workers={settings.workers}"]
        found += ["--default_sdk_harness_log_level=WARNING"]  # each worker would tell of its channels
    return [*found, *settings.options]
