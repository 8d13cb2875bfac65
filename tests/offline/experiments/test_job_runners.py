"""The same log on every runner that can be had here: the same bytes of report.json."""

from pathlib import Path

import pytest

from offline.experiments.analyse import analyse
from offline.runners import RunnerSettings
from tests.offline import beam_runners
from tests.offline.experiments.log_folders import NOW_MS, sound_log, write_log
from tests.offline.experiments.log_rows import ANALYSIS


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("log"), sound_log(1, users=60), files=3)


@pytest.fixture(scope="module")
def expected(log: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return report(log, tmp_path_factory.mktemp("one-process"), RunnerSettings())


def report(log: Path, out: Path, settings: RunnerSettings) -> bytes:
    analyse(ANALYSIS, log, out, now_ms=NOW_MS, settings=settings)
    return (out / "report.json").read_bytes()


def test_several_processes(log: Path, expected: bytes, tmp_path: Path) -> None:
    assert report(log, tmp_path, RunnerSettings(workers=2)) == expected


def test_prism(log: Path, expected: bytes, tmp_path: Path) -> None:
    with beam_runners.prism(tmp_path) as settings:
        assert report(log, tmp_path / "out", settings) == expected


def test_two_dask_processes(log: Path, expected: bytes, tmp_path: Path) -> None:
    with beam_runners.dask(tmp_path, processes=2) as settings:
        assert report(log, tmp_path / "out", settings) == expected
