"""A training job: everything that a run needs, in one file, so that another process (or machine) can run it.

    python -m offline.training.job JOB.json

Exit codes are the command line's: 0 done, 1 failed or its time is over, 2 wrong usage, 130 interrupted. Repeating the
same job resumes it, and a job that is done is not run again: so a retried Beam bundle resumes (beam_job.py).
"""

import os
import sys
import time
from pathlib import Path
from typing import Literal

import msgspec

from offline.training.llm_judge import Endpoint
from offline.training.manifest import RunManifest, finished_run
from offline.training.material import Material
from offline.training.progress import Progress
from offline.training.rewards import reward_names, weighted
from offline.training.run import MODEL
from offline.training.sizes import Size, size_of
from offline.training.stage import Session
from schemas.config import Api
from schemas.errors import KeenstreamError, UsageError
from schemas.secret import Secret

JUDGE_KEY = "KEENSTREAM_JUDGE_KEY"  # the environment's name of the key of an LLM judge
JobKind = Literal["cleaner", "warm-start", "teacher", "student"]


class TrainingJob(msgspec.Struct, frozen=True, kw_only=True):
    """Paths are absolute or relative to the working directory of whoever runs it."""

    kind: JobKind
    folder: str  # of the run
    examples: str = ""  # from `keenstream train prepare`; a cleaner has labels instead
    home: str = ""  # where models are built (KEENSTREAM_HOME); a cleaner needs none
    labels: tuple[str, ...] = ()  # of a cleaner: files and simulated folders
    most_wrong: float = 0.01  # of what a cleaner's labels keep, the share that it may drop
    size: str = "laptop"
    device: str = "cpu"
    base: str = ""  # model to start from; "" = the size's own, or the pruned teacher
    teacher: str = ""  # run of the teacher, for a student
    method: Literal["on-policy", "supervised", "none"] = "on-policy"
    warm_start: bool = True  # of a teacher
    steps: int | None = None  # of the last stage, instead of the size's
    learning_rate: float | None = None  # of a warm start, instead of the size's
    layers: int | None = None  # kept of a student's teacher, or of the base of another; instead of the size's
    readers: int | None = None  # training examples at most
    seed: int | None = None  # of everything random in the run, instead of the size's
    beyond: tuple[str, ...] = ()  # rewards that the paper does not have
    reward_weights: dict[str, float] = {}
    judge: Literal["embedding", "llm"] = "embedding"  # of coverage and specificity
    judge_url: str = ""  # of the LLM judge, up to and with /v1; its key is not in here (Session)
    judge_model: str = ""
    judge_timeout: float = 30.0  # seconds, of one answer


def run_job(job: TrainingJob, session: Session) -> RunManifest:
    """Train to the end, or raise KeenstreamError; KeyboardInterrupt after Ctrl-C."""
    from offline.evaluate.local_embedder import LocalEmbedder
    from offline.release.models import ModelPaths
    from offline.training.loading import load_material
    from offline.training.trainer_arguments import (
        check_device,
        keep_freed_memory,
        limit_threads,
        quiet_libraries,
    )

    keep_freed_memory()
    check_device(job.device)
    if job.kind == "cleaner":
        return _run_cleaner(job, session)
    weighted(reward_names(job.beyond), job.reward_weights)  # told at once
    judge = judge_of(job, session.judge_key)
    quiet_libraries()
    size = sized(job)
    limit_threads(size.threads)
    embedder = LocalEmbedder(ModelPaths.below(Path(job.home)).embedder)
    session.tell("reading the examples and embedding their news")
    material = load_material(
        Path(job.examples), embedder, Api(), most_readers=job.readers, beyond=job.beyond, judge=judge
    )
    return run_on(job, size, material, session)


def _run_cleaner(job: TrainingJob, session: Session) -> RunManifest:
    from offline.training.cleaner import CleanerSettings, train_cleaner
    from offline.training.labels import load_labels

    settings = CleanerSettings(most_wrong=job.most_wrong)
    if job.steps:
        settings = msgspec.structs.replace(settings, steps=job.steps)
    session.tell("reading the labels")
    labels = load_labels([Path(path) for path in job.labels])
    return train_cleaner(Path(job.folder), labels, settings, session, base=job.base or "tiny")


def run_on(job: TrainingJob, size: Size, material: Material, session: Session) -> RunManifest:
    """The same with the material at hand."""
    from offline.training.bases import ensure_base
    from offline.training.student import PRUNED, ensure_pruned, train_student
    from offline.training.teacher import train_teacher, train_warm_start

    folder = Path(job.folder)
    if job.kind == "student":
        if not job.teacher:
            raise UsageError("a student needs a teacher: name the folder of its run")
        finished_run(Path(job.teacher))
        teacher = Path(job.teacher) / MODEL
        return train_student(folder, material, size, teacher, session, base=job.base or None, method=job.method)
    base = ensure_base(job.base or size.base, Path(job.home))
    if layers := job.layers or (0 if job.base else size.layers):
        base = str(ensure_pruned(folder / PRUNED, base, layers, material))
    if job.kind == "warm-start":
        return train_warm_start(folder, material, size.name, size.warm_start, base, session)
    return train_teacher(folder, material, size, base, session, warm_start=job.warm_start)


def judge_of(job: TrainingJob, key: Secret) -> Endpoint | None:
    """Where the LLM judge answers; None for the embedding judges. UsageError when half of it is named."""
    if job.judge == "embedding":
        if job.judge_url or job.judge_model:
            raise UsageError("--judge-url and --judge-model are of an LLM judge: add --judge llm")
        return None
    if not job.judge_url.startswith(("http://", "https://")) or not job.judge_model:
        raise UsageError(
            "--judge llm needs --judge-url, the address of an OpenAI-compatible endpoint up to /v1 such as "
            "http://localhost:8000/v1, and --judge-model, the name of its model"
        )
    return Endpoint(url=job.judge_url, model=job.judge_model, key=key, timeout_seconds=job.judge_timeout)


def sized(job: TrainingJob) -> Size:
    """The size with what the job changes of it."""
    size = size_of(job.size)
    teacher = msgspec.structs.replace(size.teacher, reward_weights=job.reward_weights)
    student = msgspec.structs.replace(size.student, layers=job.layers or size.student.layers)
    warm_start = size.warm_start
    if job.learning_rate:
        warm_start = msgspec.structs.replace(warm_start, learning_rate=job.learning_rate)
    if job.steps and job.kind == "warm-start":
        warm_start = msgspec.structs.replace(warm_start, steps=job.steps)
    elif job.steps and job.kind == "teacher":
        teacher = msgspec.structs.replace(teacher, steps=job.steps)
    elif job.steps:
        student = msgspec.structs.replace(student, steps=job.steps)
    return seeded(msgspec.structs.replace(size, warm_start=warm_start, teacher=teacher, student=student), job.seed)


def seeded(size: Size, seed: int | None) -> Size:
    """The size with another seed in every stage; as it is for None."""
    if seed is None:
        return size
    student = msgspec.structs.replace(
        size.student, seed=seed, warm_start=msgspec.structs.replace(size.student.warm_start, seed=seed)
    )
    return msgspec.structs.replace(
        size,
        warm_start=msgspec.structs.replace(size.warm_start, seed=seed),
        teacher=msgspec.structs.replace(size.teacher, seed=seed),
        student=student,
    )


def main(path: str) -> int:
    """Run the job in a file; progress goes to standard error, a line for each step."""
    try:
        job = msgspec.json.decode(Path(path).read_bytes(), type=TrainingJob)
        session = Session(
            device=job.device,
            watch=_write_line,
            tell=_write,
            now_ms=int(time.time() * 1000),
            judge_key=Secret(os.environ.get(JUDGE_KEY, "")),
        )
        run_job(job, session)
    except KeyboardInterrupt:
        return 130
    except KeenstreamError as error:
        _write(str(error))
        return 2 if isinstance(error, UsageError) else 1
    return 0


def _write(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")


def _write_line(progress: Progress) -> None:
    left = f", {progress.seconds_left:.0f} s left" if progress.seconds_left is not None else ""
    _write(f"{progress.stage}: step {progress.step} of {progress.steps}{left}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
