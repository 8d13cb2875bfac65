"""Which Beam runner does the work. The default is FnApiRunner by its name: `DirectRunner` would look for Prism first.

Prism: `--runner PortableRunner --beam --job_endpoint=localhost:8073 --beam --environment_type=LOOPBACK`.
Dask: `--runner DaskRunner --beam --dask_client_address=tcp://...`.
"""

import logging
import shlex
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
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
_WORKER: Final = f"trap '' INT; exec {shlex.quote(sys.executable)} -m offline.beam_worker".encode()
_BY_NAME: Final = {"DaskRunner": "apache_beam.runners.dask.dask_runner.DaskRunner"}  # Beam does not know it by name


class RunnerSettings(msgspec.Struct, frozen=True, kw_only=True):
    runner: str = LOCAL
    workers: int = 1  # processes of the local runner; others have their own options
    options: tuple[str, ...] = ()  # Beam's, as on its command line


class LocalRunner(FnApiRunner):  # type: ignore[misc]  # Beam is untyped here
    """Its worker processes are quiet, and leave Ctrl-C to this one (`run_beam`): each would print its own."""

    def run_via_runner_api(self, pipeline_proto: Any, options: PipelineOptions) -> Any:
        for environment in pipeline_proto.components.environments.values():
            if environment.urn == python_urns.SUBPROCESS_SDK:  # its payload is a line for the shell
                environment.payload = _WORKER
        return super().run_via_runner_api(pipeline_proto, options)


def run_beam(build: Callable[[beam.Pipeline], Any], settings: RunnerSettings) -> None:
    """Run what `build` puts on an empty pipeline to its end, or until a Ctrl-C raises KeyboardInterrupt.

    In a thread of its own: raised within a step, the interrupt would be told by Beam as the step's failure, and lost
    wherever the step's libraries swallow it. Beam can't be stopped: its thread goes on, quietly, until it fails or the
    process ends. Raises UsageError for a runner that Beam does not know.
    """
    logging.getLogger("apache_beam.runners.portability.local_job_service").addFilter(_needed)  # added once only
    pipeline = _new_pipeline(settings)
    build(pipeline)
    ended: Future[None] = Future()
    before = psutil.Process().children()
    threading.Thread(target=_run, args=(pipeline, ended), name="beam", daemon=True).start()
    try:
        ended.result()
    except KeyboardInterrupt:
        _abandon(pipeline, [child for child in psutil.Process().children() if child not in before])
        raise


def _run(pipeline: beam.Pipeline, ended: "Future[None]") -> None:
    try:
        result = pipeline.run()
        result.wait_until_finish()
        if (client := getattr(result, "client", None)) is not None:
            client.close()  # Dask's, which would go on looking for its cluster
    except BaseException as error:
        ended.set_exception(error)
    else:
        ended.set_result(None)


def _abandon(pipeline: beam.Pipeline, workers: Sequence[psutil.Process]) -> None:
    """The workers end, and what Beam's threads have to say of that, and of files that are gone, nobody hears."""
    threading.excepthook = lambda failed: None
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL + 1)
    for worker in workers:
        with suppress(psutil.NoSuchProcess):
            worker.kill()
    shutil.rmtree(pipeline.local_tempdir, ignore_errors=True)


def _needed(record: logging.LogRecord) -> bool:
    """Not what workers warn of and nothing here needs: Google Cloud's client, a folder of staged files."""
    unwanted = ("apitools not found", "No semi_persistent_directory found")
    return not any(text in record.getMessage() for text in unwanted)


def _new_pipeline(settings: RunnerSettings) -> beam.Pipeline:
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


def pipeline_options(settings: RunnerSettings) -> PipelineOptions:
    return PipelineOptions(_arguments(settings))


def _arguments(settings: RunnerSettings) -> Sequence[str]:
    found = [f"--runner={_BY_NAME.get(settings.runner, settings.runner)}"]
    if settings.runner == LOCAL and settings.workers > 1:
        found += ["--direct_running_mode=multi_processing", f"--direct_num_workers={settings.workers}"]
        found += ["--default_sdk_harness_log_level=WARNING"]  # each worker would tell of its channels
    return [*found, *settings.options]
