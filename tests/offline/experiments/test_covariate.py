"""A covariate that the log has: another model's prediction instead of the metric's own history (CUPAC)."""

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from offline.experiments.definition import Analysis, Metric, check_analysis
from offline.experiments.report import Report
from schemas.errors import UsageError
from tests.offline.experiments.log_rows import CLICKS
from tests.offline.experiments.trap_logs import ANALYSIS, Log, analysed, make_log, row_of

PLAIN = Metric(name="plain", role="primary", numerator=CLICKS, cuped=False)
HISTORY = Metric(name="history", numerator=CLICKS)
GIVEN = Metric(name="given", numerator=CLICKS, covariate="predicted clicks")
PREDICTED = msgspec.structs.replace(ANALYSIS, metrics=(PLAIN, HISTORY, GIVEN))


def predicted(exposures: pa.Table, clicked: dict[str, float]) -> pa.Table:
    """A guess of each reader's clicks on the rows of the first exposure; nonsense on all later ones."""
    drawn = np.random.default_rng(5)
    users, times = exposures["user_id"].to_pylist(), exposures["exposed_at"].to_numpy()
    inside = pc.equal(exposures["experiment"], "path").to_numpy(zero_copy_only=False)
    first: dict[str, int] = {}
    for user, time, within in zip(users, times, inside, strict=True):
        if within:
            first[user] = min(int(time), first.get(user, int(time)))
    guess = {user: clicked.get(user, 0.0) + drawn.normal(0, 0.3) for user in first}
    values = [guess[user] if first[user] == time else 1e9 for user, time in zip(users, times, strict=True)]
    return exposures.append_column("predicted clicks", pa.array(values, pa.float64()))


@pytest.fixture(scope="module")
def log() -> Log:
    exposures, clicks = make_log(3, readers=800, spread=1.0)
    inside = exposures.filter(pc.equal(exposures["experiment"], "path"))
    asked = set(inside["request_id"].to_pylist())
    clicked: dict[str, float] = {}
    for user, request in zip(clicks["user_id"].to_pylist(), clicks["request_id"].to_pylist(), strict=True):
        if request in asked:
            clicked[user] = clicked.get(user, 0.0) + 1
    return predicted(exposures, clicked), clicks


@pytest.fixture(scope="module")
def report(log: Log, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return analysed(log, tmp_path_factory.mktemp("predicted"), PREDICTED)


def error(report: Report, metric: str) -> float:
    found = row_of(report, metric).difference
    assert found is not None
    return found.standard_error


def test_a_good_prediction_narrows_more_than_history(report: Report) -> None:
    assert error(report, "given") < 0.5 * error(report, "history")
    assert error(report, "history") <= 1.02 * error(report, "plain")


def test_it_moves_no_plain_figure(report: Report) -> None:
    given, plain = row_of(report, "given"), row_of(report, "plain")
    assert given.control is not None
    assert plain.control is not None
    assert given.control.unadjusted == pytest.approx(plain.control.unadjusted)


def test_what_is_no_number_goes_to_the_quarantine(log: Log, tmp_path: Path) -> None:
    exposures, clicks = log
    values = exposures["predicted clicks"].to_pylist()
    values[:3] = [float("nan"), float("inf"), None]  # null is 0: a reader of whom nothing was predicted
    at = exposures.column_names.index("predicted clicks")
    broken = exposures.set_column(at, "predicted clicks", pa.array(values, pa.float64()))
    found = analysed((broken, clicks), tmp_path, PREDICTED)
    assert found.log.quarantined == 2
    rows = pq.read_table(tmp_path / "out" / "quarantine").to_pylist()
    assert {(row["field"], row["reason"]) for row in rows} == {("covariate_2", "no number")}


def test_a_log_without_it_is_refused(log: Log, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no column predicted clicks"):
        analysed((log[0].drop_columns(["predicted clicks"]), log[1]), tmp_path, PREDICTED)


def test_it_is_for_means_and_ratios() -> None:
    of_quantile = Metric(name="median", numerator=CLICKS, quantile=0.5, covariate="x")
    analysis: Analysis = msgspec.structs.replace(PREDICTED, metrics=(PLAIN, of_quantile))
    with pytest.raises(UsageError, match="metric median: a covariate is of use for means and ratios"):
        check_analysis(analysis)
