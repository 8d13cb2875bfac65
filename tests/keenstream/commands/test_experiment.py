"""`keenstream experiment`: what it writes and prints, and how each refusal ends."""

import json
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from keenstream.commands.experiment import app
from schemas.errors import UsageError
from schemas.experiment import assign_arm
from schemas.exposure import Exposure, Outcome
from tests.offline.experiments.log_folders import as_row, sound_log, write_log, write_rows
from tests.offline.experiments.log_rows import ANALYSIS
from tests.offline.experiments.test_definition import SOUND


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("log"), sound())


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "analysis.toml"
    path.write_text(SOUND.replace("window_days = 7.0", "window_days = 1.0\n"))
    return path


def sound() -> tuple[list[Exposure], list[Outcome]]:
    """A log by the rule of assignment: nobody in two arms."""
    exposures, outcomes = sound_log(1, users=150)
    found = []
    for row in exposures:
        drawn = assign_arm(row.user_id, ANALYSIS.experiment, row.exposed_at).arm
        found.append(msgspec.structs.replace(row, arm=drawn.name if row.experiment and drawn else ""))
    return found, outcomes


def run(command: str, config: Path, *arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [command, str(config), *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def test_analyse_writes_a_report_and_prints_the_verdict(config: Path, log: Path, tmp_path: Path) -> None:
    said = run("analyse", config, "--log", log, "--out", tmp_path / "out")
    written = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert written["verdicts"]["treatment"]["sentence"] in said.replace("\n", " ")
    assert written["log"]["quarantined"] == 0


def test_json_is_the_report(config: Path, log: Path, tmp_path: Path) -> None:
    said = run("analyse", config, "--log", log, "--out", tmp_path / "out", "--json")
    assert json.loads(said) == json.loads((tmp_path / "out" / "report.json").read_bytes())


def test_a_failed_sample_ratio_is_exit_code_3_with_a_report(config: Path, tmp_path: Path) -> None:
    exposures, outcomes = sound()
    lost = [row for row in exposures if row.arm != "treatment" or hash_of(row.user_id) % 4 == 0]
    folder = write_log(tmp_path / "log", (lost, outcomes))
    run("analyse", config, "--log", folder, "--out", tmp_path / "out", code=3)
    verdict = json.loads((tmp_path / "out" / "report.json").read_bytes())["verdicts"]["treatment"]
    assert verdict["judgement"] == "blocked"
    assert "sample ratio" in verdict["sentence"]


def hash_of(user_id: str) -> int:
    return int(user_id.removeprefix("u"))


def test_too_many_bad_rows_fail_the_run(config: Path, tmp_path: Path) -> None:
    log = log_with_bad_rows(tmp_path / "log", every=20)
    place = r"user_id: null \([0-9,]+, first in .*exposures.*\.parquet, row group 0\)"
    limit = r"More than trust\.max_quarantined_share = 1\.00% fails the run"
    with pytest.raises(UsageError, match=rf"rows are bad: {place}; all are in .*{limit}"):
        run("analyse", config, "--log", log, "--out", tmp_path / "out")
    assert (tmp_path / "out" / "report.json").exists()


def test_few_bad_rows_are_told_beside_the_answer(config: Path, tmp_path: Path) -> None:
    log = log_with_bad_rows(tmp_path / "log", every=400)
    result = CliRunner().invoke(app, ["analyse", str(config), "--log", str(log), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0
    assert "rows are bad: user_id: null (" in result.stderr


def log_with_bad_rows(folder: Path, every: int) -> Path:
    exposures, outcomes = sound()
    rows = [as_row(row) | ({"user_id": None} if n % every == 7 else {}) for n, row in enumerate(exposures)]
    write_rows(folder, "exposures", rows, "parquet")
    write_rows(folder, "outcomes", [as_row(row) for row in outcomes], "parquet")
    return folder


def test_an_arm_without_readers_is_wrong_input(config: Path, tmp_path: Path) -> None:
    exposures, outcomes = sound()
    folder = write_log(tmp_path / "log", ([row for row in exposures if row.arm != "treatment"], outcomes))
    with pytest.raises(
        UsageError, match=r"no reader of the log is in treatment of the experiment path \(control \d+, "
    ):
        run("analyse", config, "--log", folder, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("control =", "contrl =", "unknown field `contrl`"),
        ("[experiment]", '[log]\nexposure_columns = { user_id = "uid" }\n\n[experiment]', "there is no column uid"),
        ("[experiment]", '[log]\nexposures = "nowhere"\n\n[experiment]', "there are no exposures at"),
    ],
)
def test_wrong_usage_is_one_sentence(
    config: Path, log: Path, tmp_path: Path, before: str, after: str, reason: str
) -> None:
    config.write_text(config.read_text().replace(before, after, 1))
    with pytest.raises(UsageError, match=reason):
        run("analyse", config, "--log", log, "--out", tmp_path / "out")
    assert list(tmp_path.glob("out/*")) == []


def test_a_runner_that_beam_does_not_know_is_named(config: Path, log: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--runner Nobody: Unexpected pipeline runner"):
        run("analyse", config, "--log", log, "--out", tmp_path / "out", "--runner", "Nobody")


@pytest.mark.parametrize("lost", ["arm", "experiment", "user_id"])
def test_a_log_without_a_column_that_tells_arms_apart_is_refused(config: Path, tmp_path: Path, lost: str) -> None:
    folder = write_log(tmp_path / "log", sound())
    for path in (folder / "exposures").rglob("*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns([lost]), path)
    with pytest.raises(UsageError, match=rf"exposures.*parquet: there is no column {lost}"):
        run("analyse", config, "--log", folder, "--out", tmp_path / "out")


def test_power_from_a_log_and_from_a_guess(config: Path, log: Path) -> None:
    (seen,) = json.loads(run("power", config, "--log", log, "--lift", 0.1, "--json"))
    assert seen["metric"] == "ctr"
    assert seen["users_needed"] > seen["users"] > 0
    assert 0 < seen["power_so_far"] < 0.8
    guess = ("--mean", 0.1, "--variance", 0.09, "--lift", 0.02, "--daily-users", 5000)
    (always,) = json.loads(run("power", config, *guess, "--json"))
    assert always["decision"] == "confidence-sequence"
    assert 2 * 706_398 < always["users_needed"] < 3 * 706_398  # looking at any time has its price
    config.write_text('decision = "fixed"\n' + config.read_text())
    guessed = run("power", config, *guess)
    assert "706,398 readers" in guessed  # 2 (1.96 + 0.84)^2 2 variance / (lift mean)^2
    assert "142 more days" in guessed


def test_power_needs_a_log_or_a_guess(config: Path) -> None:
    with pytest.raises(UsageError, match="give --log DIR, or both --mean and --variance"):
        run("power", config, "--mean", 0.1)
    with pytest.raises(UsageError, match="--mean and --lift not 0"):
        run("power", config, "--mean", 0.1, "--variance", 0.1, "--lift", 0)


POLICY = '\n[offpolicy]\npolicies = [{ name = "ranking", exploration = 0.0 }]\n'


def test_a_deterministic_log_is_refused(config: Path, log: Path, tmp_path: Path) -> None:
    config.write_text(config.read_text() + POLICY)
    run("offpolicy", config, "--log", log, "--out", tmp_path / "out", code=3)
    (policy,) = json.loads((tmp_path / "out" / "offpolicy.json").read_bytes())["policies"]
    assert policy["status"] == "refused"
    assert "the log is deterministic" in policy["sentence"]
    assert policy["values"] == []


def test_policies_must_be_named(config: Path, log: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no table \[offpolicy\]"):
        run("offpolicy", config, "--log", log, "--out", tmp_path / "out")
