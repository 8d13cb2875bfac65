"""Which Beam runner does the work. The default is FnApiRunner by its name: `DirectRunner` would look for Prism first.

Prism: `--runner PortableRunner --beam --job_endpoint=localhost:8073 --beam --environment_type=LOOPBACK`.
Dask: `--runner DaskRunner --beam --dask_client_address=tcp://...`.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from apache_beam.options.pipeline_options import PipelineOptions

LOCAL: Final = "FnApiRunner"
_BY_NAME: Final = {"DaskRunner": "apache_beam.runners.dask.dask_runner.DaskRunner"}  # Beam does not know it by name


class RunnerSettings(msgspec.Struct, frozen=True, kw_only=True):
    runner: str = LOCAL
    workers: int = 1  # processes of the local runner; others have their own options
    options: tuple[str, ...] = ()  # Beam's, as on its command line


def pipeline_options(settings: RunnerSettings) -> PipelineOptions:
    return PipelineOptions(_arguments(settings))


def _arguments(settings: RunnerSettings) -> Sequence[str]:
    found = [f"--runner={_BY_NAME.get(settings.runner, settings.runner)}"]
    if settings.runner == LOCAL and settings.workers > 1:
        found += ["--direct_running_mode=multi_processing", f"--direct_num_workers={settings.workers}"]
        found += ["--default_sdk_harness_log_level=WARNING"]  # each worker would tell of its channels
    return [*found, *settings.options]
