"""The benches of experiments at their smallest: worlds with the truth they claim, counts, and engines that agree."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

from bench._experiment_calibration import Band, Study, at_most, coverage, false_positives, run_studies, status_of
from bench._experiment_checks import check_studies
from bench._experiment_inference import inference_studies
from bench._experiment_log import write_log
from bench._experiment_looks import look_studies
from bench._experiment_offpolicy import offpolicy_studies
from bench._experiment_report import CalibrationReport, plot_calibration, show_calibration
from bench._experiment_scale import fold_by_beam, fold_by_duckdb, fold_by_pandas
from bench._experiment_truth import truth_studies
from bench._experiment_worlds import click_rate, draw_readers, mean_clicks
from bench._machine import this_machine
from offline.experiments.moments import NotEnoughData


def test_help_shows_an_example() -> None:
    argv = [sys.executable, "-m", "bench.experiments", "--help"]
    assert "--calibration" in subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_readers_have_the_truth_that_is_claimed() -> None:
    rows = draw_readers(np.random.default_rng(1), 400_000, lift=0.1).rows
    assert rows[:, 0].mean() == pytest.approx(mean_clicks(0.1), rel=0.02)
    assert rows[:, 0].sum() / rows[:, 1].sum() == pytest.approx(click_rate(0.1), rel=0.02)


def coin(drawn: np.random.Generator) -> Mapping[str, bool]:
    found = {"heads": bool(drawn.random() < 0.5)}
    return found if drawn.random() < 0.8 else {}


COIN = Study("coin", coin, {"heads": Band("coverage", 0.45, 0.55), "never": coverage()})


def test_rates_are_counted_over_defined_runs_and_do_not_depend_on_the_workers() -> None:
    one, two = ([*run_studies([COIN], runs=900, seed=3, workers=workers)][-1][2] for workers in (1, 2))
    assert one == two
    heads, never = one
    assert heads.rate == pytest.approx(0.5, abs=0.07)
    assert heads.runs == 900
    assert 120 < heads.undefined < 240
    assert never.rate is None
    assert never.status == "outside"


def test_a_rate_is_judged_by_its_band_and_its_monte_carlo_error() -> None:
    assert status_of(0.05, 0.003, false_positives()) == "inside"
    assert status_of(0.07, 0.003, false_positives()) == "within error"
    assert status_of(0.09, 0.003, false_positives()) == "outside"
    assert status_of(0.052, 0.003, at_most(0.05, "looks")) == "within error"
    assert status_of(0.2, 0.003, Band("looks")) == "contrast"


STUDIES = [*inference_studies(), *look_studies(), *offpolicy_studies(), *check_studies(), *truth_studies()]


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_every_declared_figure_is_drawn_and_no_other(study: Study) -> None:
    try:
        assert set(study.draw(np.random.default_rng(4))) == set(study.figures)
    except NotEnoughData:
        pytest.fail("a study lets a refused statistic through")


def test_a_calibration_is_shown_and_drawn(tmp_path: Path) -> None:
    figures = [*run_studies([COIN], runs=40, seed=3, workers=1)][-1][2]
    report = CalibrationReport(machine=this_machine(), seed=3, runs=40, seconds=1.0, outside=1, figures=figures)
    with (tmp_path / "shown").open("w") as shown:
        show_calibration(report, Console(file=shown, width=150))
    text = (tmp_path / "shown").read_text()
    assert "never defined" in text
    assert "1 of 2 figures where they belong" in text
    plot_calibration(figures, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert msgspec.json.decode(msgspec.json.encode(report), type=CalibrationReport) == report


def test_all_engines_fold_the_same_readers(tmp_path: Path) -> None:
    rows = write_log(tmp_path, 20_000, seed=5)
    assert 10_000 < rows < 30_000
    found = [fold(tmp_path) for fold in (fold_by_duckdb, fold_by_pandas, fold_by_beam)]
    assert found[0] == found[1] == found[2]
    assert found[0].readers == 200
    assert found[0].clicks > 100
