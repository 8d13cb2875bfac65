"""Training inside Beam: one keyed element that launches the resumable run as a process of its own.

Bundles are retried, may move and hide logs, so nothing trains inside a DoFn (docs: pitfalls, section 5). The process
holds the run's lock; a retried bundle starts it again and it resumes, and one that is done returns at once.
"""

import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import apache_beam as beam
import msgspec

from offline.training.job import TrainingJob
from offline.training.manifest import RunManifest, finished_run
from schemas.errors import KeenstreamError, UsageError

LOG, JOB = "job.log", "job.json"
PROGRAM = (sys.executable, "-m", "offline.training.job")  # the job's file follows
_TOLD = 2_000  # last characters of the log in an error


def launch(job: TrainingJob, program: Sequence[str] = PROGRAM) -> RunManifest:
    """Run `job` in a process and wait; UsageError or KeenstreamError with the end of its log when it fails."""
    folder = Path(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / JOB
    written.write_bytes(msgspec.json.encode(job))
    with (folder / LOG).open("ab") as log:
        code = subprocess.run([*program, str(written)], stdout=log, stderr=log, check=False).returncode
    if code:
        told = (folder / LOG).read_text(encoding="utf-8", errors="replace")[-_TOLD:].strip()
        kind = UsageError if code == 2 else KeenstreamError
        raise kind(f"training in {folder} ended with {code}; the end of {folder / LOG}: {told}")
    return finished_run(folder)


class TrainRuns(beam.PTransform):  # type: ignore[misc]  # Beam is untyped here
    """Jobs to the manifests of their runs. Jobs of one folder are one job: the key is the folder."""

    def __init__(self, program: Sequence[str] = PROGRAM) -> None:
        super().__init__()
        self._program = tuple(program)

    def expand(self, jobs: beam.PCollection) -> beam.PCollection:
        return (
            jobs
            | "Key by run" >> beam.Map(lambda job: (job.folder, msgspec.json.encode(job)))
            | "One worker for each run" >> beam.GroupByKey()
            | "Train" >> beam.ParDo(_Train(self._program))
        )


class _Train(beam.DoFn):  # type: ignore[misc]
    def __init__(self, program: tuple[str, ...]) -> None:
        super().__init__()
        self._program = program

    def process(self, element: tuple[str, Iterable[bytes]]) -> Iterator[RunManifest]:
        folder, jobs = element
        distinct = set(jobs)
        if len(distinct) > 1:
            raise UsageError(f"{len(distinct)} different jobs want to train in {folder}: give each a folder of its own")
        yield launch(msgspec.json.decode(distinct.pop(), type=TrainingJob), self._program)
