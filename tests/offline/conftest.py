"""A small simulated log, prepared."""

from pathlib import Path

import pytest

from offline.runners import RunnerSettings
from offline.simulate import SimulationSettings, write_simulation
from offline.training.preparation import PrepareSettings, prepare_examples


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    write_simulation(
        folder / "log", SimulationSettings(readers=120, articles=600, events_per_reader=25, days=6, gap=0.0)
    )
    prepare_examples(
        folder / "log", folder / "examples", PrepareSettings(buckets=1), RunnerSettings(), lambda step, done, of: None
    )
    return folder / "examples"
