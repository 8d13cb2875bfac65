"""The simulator's log read by the commands: each planted fault is named, and the truth is inside the intervals."""

import collections
import json
import math
import re
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from bench._experiment_truth import draw_policies, draw_truth
from keenstream.commands.experiment import app
from offline.experiments.check import Check
from offline.experiments.offpolicy_report import OffPolicyReport
from offline.experiments.quarantine import EARLY, FOLDER
from offline.experiments.report import Report
from offline.simulate.log_settings import LogFaults, LogSettings
from offline.simulate.log_writing import CONFIG_FILE, LogTruth, write_log

WORLD = LogSettings(
    readers=2_500, chunk_readers=2_500, days=7.0, history_days=3.0, window_days=2.0, cold_lift=0.3, warm_lift=0.15
)
FAULTS = LogFaults(
    bots=0.004,
    crossovers=0.04,
    misassigned=0.02,
    lost_treatment=0.15,
    lost_clicks=0.1,
    duplicate_exposures=0.03,
    duplicate_outcomes=0.02,
    late=0.05,
    late_treatment=0.1,
    negative_lags=0.02,
    anonymous=0.002,
)
EXPLORING = msgspec.structs.replace(WORLD, readers=4_000, chunk_readers=4_000, exploration=0.4, appeal_decay=0.8)


def run(command: str, log: Path, out: Path, *, code: int) -> str:
    result = CliRunner().invoke(app, [command, str(log / CONFIG_FILE), "--log", str(log), "--out", str(out)])
    assert result.exit_code == code, result.output
    return result.output


class Faulty(msgspec.Struct, frozen=True):
    truth: LogTruth
    report: Report
    said: str
    bad: list[dict[str, str]]

    def check(self, name: str) -> Check:
        return next(check for check in self.report.trust if check.name == name)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Faulty:
    """Exit code 3: a failed check blocks the answer."""
    folder = tmp_path_factory.mktemp("faulty")
    truth = write_log(folder / "log", msgspec.structs.replace(WORLD, faults=FAULTS))
    said = run("analyse", folder / "log", folder / "out", code=3)
    report = msgspec.json.decode((folder / "out" / "report.json").read_bytes(), type=Report)
    bad = pa.concat_tables([pq.read_table(path) for path in (folder / "out" / FOLDER).glob("*.parquet")])
    return Faulty(truth, report, said, bad.to_pylist())


def test_a_broken_sample_ratio_is_named_and_blocks(faulty: Faulty) -> None:
    assert faulty.check("sample ratio, phase 0").status == "failed"
    assert faulty.report.verdicts["treatment"].judgement == "blocked"
    assert "sample ratio, phase 0" in faulty.report.verdicts["treatment"].sentence
    assert sum(faulty.report.users.values()) == faulty.truth.planted.units


def test_readers_in_two_arms_and_in_the_wrong_one_are_counted(faulty: Faulty) -> None:
    planted = faulty.truth.planted
    crossed = faulty.check("readers seen in several arms")
    assert (crossed.status, crossed.sentence.split(";")[0]) == ("failed", f"{planted.crossovers} of {planted.units:,}")
    assert faulty.check("exposures in another arm than assigned").status == "failed"
    assert (faulty.report.log.reassigned, faulty.report.log.assigned) == (planted.misassigned, planted.units)


def test_bots_are_counted_by_arm(faulty: Faulty) -> None:
    shares = [float(share) / 100 for share in re.findall(r"([\d.]+)%", faulty.check("bots, by arm").sentence)]
    users = [faulty.report.users[arm] for arm in ("control", "treatment")]
    assert float(np.dot(shares, users)) == pytest.approx(faulty.truth.planted.bots, abs=0.4)
    assert faulty.truth.planted.bots > 3


def test_lost_clicks_are_named_with_the_arm_that_lost_them(faulty: Faulty) -> None:
    lost = faulty.check("clicks lost, by arm")
    assert lost.status == "failed"
    control, treatment = (float(share) for share in re.findall(r"([\d.]+)%", lost.sentence))
    assert control == 0
    assert treatment == pytest.approx(100 * FAULTS.lost_clicks, abs=2)
    assert "clicks lost, by arm" in faulty.said


def test_late_outcomes_are_named_with_the_arm_that_is_slower(faulty: Faulty) -> None:
    late = faulty.check("late outcomes, by arm")
    assert late.status == "warning"
    control, treatment = (float(share) for share in re.findall(r"([\d.]+)%", late.sentence))
    assert control == pytest.approx(100 * FAULTS.late, abs=1)
    assert treatment == pytest.approx(100 * (1 - 0.95 * 0.9), abs=1.5)


def test_repeated_lines_are_counted(faulty: Faulty) -> None:
    planted, rows = faulty.truth.planted, faulty.report.rows
    assert rows.repeated_exposures == planted.duplicate_exposures > 0
    # a line and its copy that both lie after the watermark are left for another run
    assert rows.repeated_outcomes == pytest.approx(planted.duplicate_outcomes, abs=2)


def test_rows_without_reader_and_outcomes_before_their_exposure_are_in_the_quarantine(faulty: Faulty) -> None:
    planted = faulty.truth.planted
    reasons = collections.Counter(row["reason"] for row in faulty.bad)
    assert reasons["null"] + reasons["empty"] == planted.anonymous_exposures + planted.anonymous_outcomes
    early = {json.loads(row["record"])["outcome_id"] for row in faulty.bad if row["reason"] == EARLY}
    assert len(early) == planted.negative_lags == faulty.report.rows.outcomes_before_exposure > 0
    assert faulty.report.log.quarantined == len(faulty.bad)
    quarantined = faulty.check("quarantined rows")
    assert quarantined.sentence.startswith(f"{len(faulty.bad):,} of {faulty.report.log.rows:,}")
    assert faulty.check("outcomes before exposure, by arm").status == "passed"  # in both arms alike


def test_a_sound_log_passes_its_checks_and_holds_the_truth(tmp_path: Path) -> None:
    truth = write_log(tmp_path / "log", msgspec.structs.replace(WORLD, seed=11))
    said = run("analyse", tmp_path / "log", tmp_path / "out", code=0)
    report = msgspec.json.decode((tmp_path / "out" / "report.json").read_bytes(), type=Report)
    assert [check.name for check in report.trust if check.status in ("failed", "warning")] == []
    true = {(effect.metric, effect.segment): effect for effect in truth.effects}
    rows = [(row, true[row.metric, "all"]) for row in report.comparisons]
    rows += [(row.comparison, true["ctr", row.segment]) for row in report.segments]
    assert all(row.lift and row.lift.interval.holds(effect.lift) for row, effect in rows)
    assert report.verdicts["treatment"].sentence in said.replace("\n", " ")


def test_over_seeds_the_truth_is_in_19_of_20_intervals() -> None:
    """Seeds 0 to 19: 20 logs, 14 intervals of each at 95 %. The truth is that of the readers who came, which an
    interval for all readers holds rather more often: the calibration counts hundreds of logs."""
    drawn = [draw_truth(np.random.default_rng(seed)) for seed in range(20)]
    for name in drawn[0]:
        assert sum(found[name] for found in drawn) >= _fewest(20), name
    missed = sum(not held for found in drawn for held in found.values())
    assert 1 <= missed <= 28  # 14 of 280 expected, those of one log together; never a miss: intervals too wide


def test_over_seeds_the_value_of_another_policy_is_in_19_of_20_intervals() -> None:
    """Seeds 0 to 24: 25 logs with 40 % of answers in random order."""
    drawn = [draw_policies(np.random.default_rng(seed)) for seed in range(25)]
    for name in drawn[0]:
        assert sum(found[name] for found in drawn) >= _fewest(25), name
    assert sum(not held for found in drawn for held in found.values()) <= 15  # of 150


def _fewest(logs: int) -> int:
    """Of intervals at 95 % that hold: fewer have a chance below 1 in 1,000."""
    chances = [math.comb(logs, held) * 0.95**held * 0.05 ** (logs - held) for held in range(logs + 1)]
    return next(held for held in range(logs + 1) if sum(chances[: held + 1]) > 0.001)


def test_other_policies_are_judged_by_the_command(tmp_path: Path) -> None:
    truth = write_log(tmp_path / "log", EXPLORING)
    run("offpolicy", tmp_path / "log", tmp_path / "out", code=0)
    found = msgspec.json.decode((tmp_path / "out" / "offpolicy.json").read_bytes(), type=OffPolicyReport)
    true = {policy.policy: policy.value for policy in truth.policies}
    assert true["ranked"] > 1.3 * true["uniform"]
    for policy in found.policies:
        assert policy.status == "estimated"
        values = {row.estimator: row for row in policy.values}
        for name in ("ips", "snips", "doubly-robust"):
            assert values[name].interval.holds(true[policy.policy]), (policy.policy, name)
        other = next(value for name, value in true.items() if name != policy.policy)
        assert not values["doubly-robust"].interval.holds(other)
        assert values["doubly-robust"].standard_error < values["ips"].standard_error


def test_a_deterministic_log_is_refused_by_the_command(tmp_path: Path) -> None:
    write_log(tmp_path / "log", msgspec.structs.replace(WORLD, readers=300, chunk_readers=300))
    config = tmp_path / "log" / CONFIG_FILE
    config.write_text(config.read_text() + '\n[[offpolicy.policies]]\nname = "uniform"\nexploration = 1.0\n')
    said = run("offpolicy", tmp_path / "log", tmp_path / "out", code=3)
    assert "the log is deterministic" in said.replace("\n", " ")
