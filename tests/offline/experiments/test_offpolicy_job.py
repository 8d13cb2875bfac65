"""Off-policy evaluation from files: known values are found; a log that cannot bear another policy is refused."""

from pathlib import Path

import msgspec
import pytest

from offline.experiments.definition import Analysis, OffPolicy, Policy
from offline.experiments.offpolicy import Value
from offline.experiments.offpolicy_report import OffPolicyReport, PolicyReport
from offline.experiments.offpolicy_run import evaluate_policies
from offline.experiments.policies import wanted_arms
from schemas.errors import UsageError
from schemas.exploration import place_propensity
from schemas.names import Topic
from tests.offline.experiments.explored_log import ASKED, EXPLORING, POOL, SHARE, explored_log, true_value
from tests.offline.experiments.log_folders import NOW_MS, as_row, shuffled, write_log, write_rows
from tests.offline.experiments.published import as_written, faults

LOG = explored_log(1, users=1_500)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("explored"), LOG)


@pytest.fixture(scope="module")
def report(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> OffPolicyReport:
    return evaluate(folder, tmp_path_factory.mktemp("out"))


def evaluate(folder: Path, out: Path, analysis: Analysis = EXPLORING) -> OffPolicyReport:
    return evaluate_policies(analysis, folder, out, now_ms=NOW_MS)


@pytest.mark.parametrize(("policy", "exploration"), [("ranking", 0.0), ("random", 1.0)])
def test_the_value_of_another_policy_is_in_its_intervals(
    report: OffPolicyReport, policy: str, exploration: float
) -> None:
    found = of(report, policy)
    by_name: dict[str, Value] = {row.estimator: row for row in found.values}
    others = {"ips", "beta-ips", "snips", "doubly-robust", "sndr"}
    assert set(by_name) == {"logged", "clipped", "direct", *others}
    for name in others:
        assert by_name[name].interval.holds(true_value(exploration))
    assert by_name["logged"].interval.holds(true_value(SHARE))
    apart: dict[str, Value] = {row.estimator: row for row in found.differences}
    for name in ("ips", "beta-ips", "doubly-robust"):
        assert apart[name].interval.holds(true_value(exploration) - true_value(SHARE))


def test_it_keeps_to_the_published_schema(report: OffPolicyReport) -> None:
    assert faults("experiment-offpolicy.json", as_written(report)) == []


def of(report: OffPolicyReport, policy: str) -> PolicyReport:
    return next(row for row in report.policies if row.policy == policy)


def test_paired_weights_are_closer_than_two_values_apart(report: OffPolicyReport) -> None:
    found = of(report, "ranking")
    paired = next(row.standard_error for row in found.differences if row.estimator == "ips")
    single = {row.estimator: row.standard_error for row in found.values}
    assert paired < 0.8 * (single["ips"] ** 2 + single["logged"] ** 2) ** 0.5


def test_what_clipping_takes_off_is_within_its_bound(folder: Path, tmp_path: Path) -> None:
    hard = msgspec.structs.replace(EXPLORING, offpolicy=msgspec.structs.replace(ASKED, clip=2.0))
    found = of(evaluate(folder, tmp_path, hard), "random")
    ips, clipped = (next(row.value for row in found.values if row.estimator == name) for name in ("ips", "clipped"))
    assert found.clip_bias_bound is not None
    assert 0 < ips - clipped <= found.clip_bias_bound


def test_a_column_of_probabilities_is_the_same_policy(report: OffPolicyReport, tmp_path: Path) -> None:
    rows = []
    for record in LOG[0]:
        row = as_row(record)
        row["theirs"] = place_propensity(record.article_id == f"a{record.position - 1}", POOL, 0.0)
        rows.append(row)
    write_rows(tmp_path, Topic.EXPOSURES, rows, "jsonl")
    write_rows(tmp_path, Topic.OUTCOMES, [as_row(row) for row in LOG[1]], "jsonl")
    asked = OffPolicy(policies=(Policy(name="ranking", column="theirs"),))
    found = of(evaluate(tmp_path, tmp_path / "out", msgspec.structs.replace(EXPLORING, offpolicy=asked)), "ranking")
    expected = of(report, "ranking")
    assert [row.value for row in found.values] == pytest.approx([row.value for row in expected.values])


def test_repeated_lines_and_order_change_nothing(report: OffPolicyReport, tmp_path: Path) -> None:
    again = evaluate(write_log(tmp_path / "log", shuffled(LOG, 1), files=3), tmp_path / "out")
    assert again.rows == report.rows
    assert [row.value for row in of(again, "random").values] == pytest.approx(
        [row.value for row in of(report, "random").values]
    )


def test_wrong_propensities_are_refused_before_any_figure(tmp_path: Path) -> None:
    wrong = [msgspec.structs.replace(row, propensity=min(1.0, row.propensity * 1.5)) for row in LOG[0]]
    asked = OffPolicy(policies=(Policy(name="same", column="propensity"), *ASKED.policies))
    folder = write_log(tmp_path / "log", (wrong, LOG[1]))
    found = evaluate(folder, tmp_path / "out", msgspec.structs.replace(EXPLORING, offpolicy=asked))
    assert found.refused
    assert "the mean weight is" in of(found, "random").sentence
    assert of(found, "random").values == []


def test_a_deterministic_log_is_refused(tmp_path: Path) -> None:
    certain = [msgspec.structs.replace(row, propensity=1.0) for row in LOG[0]]
    found = evaluate(write_log(tmp_path / "log", (certain, LOG[1])), tmp_path / "out")
    assert [row.status for row in found.policies] == ["refused", "refused"]
    assert "the log is deterministic" in found.policies[0].sentence


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    found = evaluate(write_log(tmp_path / "log", explored_log(2, users=40)), tmp_path / "out")
    assert "effective rows, fewer than 1,000" in of(found, "random").sentence


def test_an_impossible_probability_of_the_other_policy_is_a_bad_row(report: OffPolicyReport, tmp_path: Path) -> None:
    earliest = min(LOG[0], key=lambda row: row.exposed_at)
    rows = [as_row(row) | {"theirs": 1.5 if row is earliest else 0.5} for row in LOG[0]]
    write_rows(tmp_path, Topic.EXPOSURES, rows, "jsonl")
    write_rows(tmp_path, Topic.OUTCOMES, [as_row(row) for row in LOG[1]], "jsonl")
    asked = OffPolicy(policies=(Policy(name="theirs", column="theirs"),))
    found = evaluate(tmp_path, tmp_path / "out", msgspec.structs.replace(EXPLORING, offpolicy=asked))
    assert (found.log.quarantined, found.rows) == (1, report.rows - 1)


def test_without_the_table_it_says_so(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no table \[offpolicy\]"):
        evaluate(folder, tmp_path, msgspec.structs.replace(EXPLORING, offpolicy=None))


def test_arms_that_explore_are_read_unless_others_are_named() -> None:
    assert wanted_arms(EXPLORING, ASKED) == ["treatment"]
    assert wanted_arms(EXPLORING, msgspec.structs.replace(ASKED, arms=("control",))) == ["control"]
