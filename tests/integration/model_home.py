"""A state folder with a tiny served student and two finished runs, for tests that release and swap models."""

from pathlib import Path

import torch

from offline.release.models import ModelPaths
from offline.release.repository import assemble_repository
from offline.release.student import convert
from offline.runners import RunnerSettings
from offline.simulate import SimulationSettings, write_simulation
from offline.training.bases import load_base, save_model
from offline.training.preparation import PrepareSettings, prepare_examples
from offline.training.tiny import write_tiny
from schemas.names import Model
from tests.offline.release.finished import write_finished
from tests.offline.training.world import write_tokenizer


def make_home(folder: Path, embedder: Path) -> Path:
    """With `embedder` (a built one) and, as version 1 of the student, a tiny base that reads the worked examples."""
    home, tokenizer = folder / "home", folder / "tokenizer"
    tokenizer.mkdir()
    (home / "models").mkdir(parents=True)
    paths = ModelPaths.below(home)
    paths.embedder.symlink_to(embedder)
    write_tokenizer(tokenizer)
    write_tiny(tokenizer, paths.student_hf, tied=True)
    names = {"name": "tiny-base", "version": "1", "source": "random"}
    convert(paths.student_hf, paths.student, **names, prompt_version="examples-1", progress=lambda step: None)
    assemble_repository(paths.repository, {Model.STUDENT: paths.student})
    return home


def finished_run(folder: Path, base: Path, seed: int) -> Path:
    """As `keenstream train student` leaves one: the base with every weight changed a little."""
    loaded = load_base(str(base))
    torch.manual_seed(seed)
    for weight in loaded.model.parameters():
        weight.data += 0.01 * torch.randn_like(weight)
    save_model(loaded, folder / "model")
    return write_finished(folder, base)


def prepared_examples(folder: Path) -> Path:
    """Of a simulated log small enough for a test."""
    settings = SimulationSettings(readers=120, articles=400, events_per_reader=25, days=6, gap=0.0)
    write_simulation(folder / "log", settings)
    prepare_examples(
        folder / "log", folder / "examples", PrepareSettings(buckets=1), RunnerSettings(), lambda step, done, of: None
    )
    return folder / "examples"
