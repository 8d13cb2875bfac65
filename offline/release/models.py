"""Everything that Triton serves, built below one folder: `build_models` is what `make demo` calls."""

import os
from pathlib import Path

import msgspec

from offline.release.cleaner import build_cleaner
from offline.release.embedder import build_embedder
from offline.release.repository import assemble_repository
from offline.release.shipped import SHIPPED
from offline.release.student import Progress, build_student
from schemas.names import Model

# What transformers would print over the steps of a build; read when it is imported.
_QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


class ModelPaths(msgspec.Struct, frozen=True, kw_only=True):
    """Where each stage of the models lies."""

    cache: Path  # wheels
    student_hf: Path  # float32 weights, to train from
    student: Path  # what the OpenVINO engine loads
    embedder: Path
    cleaner: Path
    repository: Path  # what Triton is started with

    @classmethod
    def below(cls, home: Path, *, untrained: bool = False) -> "ModelPaths":
        """`untrained`: of a student and a repository beside those that are served otherwise."""
        models, apart = home / "models", "-untrained" if untrained else ""
        return cls(
            cache=home / "cache",
            student_hf=models / "student-hf",
            student=models / f"student{apart}",
            embedder=models / "embedder",
            cleaner=models / "cleaner",
            repository=models / f"repository{apart}",
        )


def build_models(home: Path, progress: Progress, *, shipped: Path | None = SHIPPED) -> ModelPaths:
    """Build what is missing or out of date below `home` and put the repository together; a second call is quick.

    `shipped` None: the student is the base with worked examples, whatever the repository ships.
    """
    return _build(ModelPaths.below(home), progress, shipped)


def build_untrained(home: Path, progress: Progress) -> ModelPaths:
    """The same with the base as student, beside what is served here otherwise."""
    return _build(ModelPaths.below(home, untrained=True), progress, None)


def _build(paths: ModelPaths, progress: Progress, shipped: Path | None) -> ModelPaths:
    for name, quiet in _QUIET.items():
        os.environ.setdefault(name, quiet)
    build_student(paths.student_hf, paths.student, paths.cache, progress, shipped=shipped)
    build_embedder(paths.embedder, progress)
    weights = {Model.STUDENT: paths.student, Model.EMBEDDER: paths.embedder}
    if build_cleaner(paths.cleaner, progress):
        weights[Model.CLEANER] = paths.cleaner
    progress("putting the model repository together")
    assemble_repository(paths.repository, weights)
    return paths
