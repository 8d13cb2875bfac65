"""The log of a simulated experiment: repeated by its seed, its truth found by naive estimates, its faults in number."""

import collections
import tomllib
from pathlib import Path

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from offline.experiments.analyse import analyse
from offline.experiments.definition import Analysis, read_analysis
from offline.experiments.quarantine import EARLY
from offline.experiments.report import Report
from offline.simulate.experiment_log import LogChunk, generate_chunk, generate_log
from offline.simulate.log_faults import Planted
from offline.simulate.log_readers import Floats
from offline.simulate.log_settings import BOT_REQUESTS, LogFaults, LogSettings, changed_settings, experiment_of
from offline.simulate.log_truth import METRICS, Effect, TruthSums, effects
from offline.simulate.log_writing import CONFIG_FILE, TRUTH_FILE, LogTruth, analysis_config, write_log
from schemas.archive import archive_files, read_archive_file, records
from schemas.errors import UsageError
from schemas.experiment import assign_arm
from schemas.names import Topic
from tests.offline.experiments.folding import fold_users

SMALL = LogSettings(readers=400, chunk_readers=150, days=6.0, history_days=3.0, window_days=2.0)
FAULTS = LogFaults(
    bots=0.02,
    crossovers=0.1,
    misassigned=0.05,
    lost_treatment=0.2,
    duplicate_exposures=0.05,
    duplicate_outcomes=0.04,
    late=0.1,
    negative_lags=0.06,
    anonymous=0.03,
)
FAULTY = msgspec.structs.replace(SMALL, faults=FAULTS, ramp=(0.2,), ramp_days=2.0)


class Whole(msgspec.Struct, frozen=True, eq=False):
    """All chunks as one."""

    exposures: pa.Table
    outcomes: pa.Table
    planted: Planted
    effects: list[Effect]

    def effect(self, metric: str, segment: str = "all") -> Effect:
        return next(row for row in self.effects if (row.metric, row.segment) == (metric, segment))


def whole(settings: LogSettings) -> Whole:
    chunks = list(generate_log(settings))
    return Whole(
        pa.concat_tables([chunk.exposures for chunk in chunks]),
        pa.concat_tables([chunk.outcomes for chunk in chunks]),
        sum((chunk.planted for chunk in chunks), Planted()),
        effects(sum((chunk.truth for chunk in chunks), TruthSums.zero())),
    )


@pytest.fixture(scope="module")
def faulty() -> Whole:
    return whole(FAULTY)


def analysis_of(settings: LogSettings) -> Analysis:
    return msgspec.convert(tomllib.loads(analysis_config(settings)), Analysis)


def count(log: Whole, query: str) -> int:
    with duckdb.connect(":memory:") as session:
        session.register("exposures", log.exposures)
        session.register("outcomes", log.outcomes)
        row = session.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def test_the_seed_repeats_every_row_and_a_chunk_can_be_made_alone() -> None:
    def tables(chunk: LogChunk) -> tuple[pa.Table, pa.Table]:
        return chunk.exposures, chunk.outcomes

    once, again = list(generate_log(FAULTY)), list(generate_log(FAULTY))
    assert [chunk.first_reader for chunk in once] == [0, 150, 300]
    assert all(a.equals(b) for x, y in zip(once, again, strict=True) for a, b in zip(tables(x), tables(y), strict=True))
    alone = generate_chunk(FAULTY, 150)
    assert alone.exposures.equals(once[1].exposures)
    other = generate_chunk(msgspec.structs.replace(FAULTY, seed=8), 150)
    assert not other.exposures.equals(alone.exposures)


def test_ids_are_distinct_and_arms_are_those_of_the_rule() -> None:
    log = whole(SMALL)
    assert pc.count_distinct(log.exposures["exposure_id"]).as_py() == log.exposures.num_rows
    assert pc.count_distinct(log.outcomes["outcome_id"]).as_py() == log.outcomes.num_rows
    experiment = experiment_of(SMALL)
    rows = log.exposures.filter(pc.equal(log.exposures["experiment"], SMALL.name))
    pairs = rows.group_by(["user_id", "arm"]).aggregate([("exposed_at", "min")]).to_pylist()
    assert len(pairs) == log.planted.units > 300
    for row in pairs:
        drawn = assign_arm(row["user_id"], experiment, row["exposed_at_min"]).arm
        assert drawn is not None and drawn.name == row["arm"]


@pytest.mark.parametrize(
    ("fault", "query"),
    [
        ("exposures", "SELECT count(*) FROM exposures"),
        ("outcomes", "SELECT count(*) FROM outcomes"),
        ("duplicate_exposures", "SELECT count(*) - count(DISTINCT exposure_id) FROM exposures"),
        ("duplicate_outcomes", "SELECT count(*) - count(DISTINCT outcome_id) FROM outcomes"),
        ("anonymous_exposures", "SELECT count(*) FROM exposures WHERE user_id IS NULL OR user_id = ''"),
        ("anonymous_outcomes", "SELECT count(*) FROM outcomes WHERE user_id IS NULL OR user_id = ''"),
        (
            "crossovers",
            "SELECT count(*) FROM (SELECT 1 FROM exposures WHERE experiment <> '' AND user_id <> '' "
            "GROUP BY user_id, phase HAVING count(DISTINCT arm) > 1)",
        ),
        (
            "negative_lags",
            "SELECT count(DISTINCT outcome_id) FROM outcomes JOIN exposures USING (request_id, article_id) "
            "WHERE occurred_at < exposed_at AND outcomes.user_id <> ''",
        ),
        (
            "late_outcomes",
            "SELECT count(*) FROM (SELECT min(kafka_timestamp - occurred_at) AS lag FROM outcomes "
            "WHERE user_id <> '' GROUP BY outcome_id) WHERE lag >= 3600000",
        ),
        (
            "bots",
            "SELECT count(*) FROM (SELECT DISTINCT user_id, phase FROM exposures WHERE experiment <> '') "
            "WHERE user_id IN "
            "(SELECT user_id FROM exposures WHERE experiment = '' AND user_id <> '' "
            f"GROUP BY user_id HAVING count(DISTINCT request_id) > {BOT_REQUESTS})",
        ),
    ],
)
def test_each_planted_fault_is_there_in_its_number(faulty: Whole, fault: str, query: str) -> None:
    planted = getattr(faulty.planted, fault)
    assert planted == count(faulty, query)
    assert planted > 0


def test_readers_in_another_arm_than_assigned_are_counted(faulty: Whole) -> None:
    experiment = experiment_of(FAULTY)
    rows = faulty.exposures.filter(pc.equal(faulty.exposures["experiment"], FAULTY.name)).sort_by("exposed_at")
    first: dict[tuple[str, int], dict[str, object]] = {}
    for row in rows.select(["user_id", "phase", "arm", "exposed_at"]).to_pylist():
        if row["user_id"]:
            first.setdefault((row["user_id"], row["phase"]), row)
    assert len(first) == faulty.planted.units
    drawn = {key: assign_arm(key[0], experiment, int(str(row["exposed_at"]))).arm for key, row in first.items()}
    wrong = sum(arm is None or arm.name != first[key]["arm"] for key, arm in drawn.items())
    assert wrong == faulty.planted.misassigned > 0


def test_lost_readers_are_missing_from_the_treatment_alone() -> None:
    sound = whole(SMALL)
    lossy = whole(msgspec.structs.replace(SMALL, faults=LogFaults(lost_treatment=0.3)))
    arms = "SELECT count(DISTINCT user_id) FROM exposures WHERE arm = '{}'"
    assert count(sound, arms.format("control")) == count(lossy, arms.format("control"))
    missing = count(sound, arms.format("treatment")) - count(lossy, arms.format("treatment"))
    assert missing == lossy.planted.lost > 20


def test_the_truth_is_the_configured_lift_and_naive_estimates_find_it() -> None:
    settings = LogSettings(
        readers=12_000, days=6.0, history_days=0.0, window_days=2.0, cold_lift=0.5, warm_lift=0.2, activity_lift=0.3,
        dwell_lift=0.2, base_ctr=0.15, taste_spread=0.3, activity_spread=0.3, seed=3,
    )  # fmt: skip
    log = whole(settings)
    assert log.effect("ctr", "cold").lift == pytest.approx(0.5, abs=0.01)  # a chance cannot pass 1
    assert log.effect("ctr", "warm").lift == pytest.approx(0.2, abs=0.01)
    analysis = analysis_of(settings)
    users = fold_users(log.exposures, log.outcomes, analysis, watermark_ms=settings.end_ms).users
    users = users.filter(pc.and_(users["mature"], pc.invert(users["bot"])))
    for number, metric in enumerate(METRICS):
        true = log.effect(metric)
        for arm, expected in (("control", true.control), ("treatment", true.treatment)):
            rows = users.filter(pc.equal(users["arm"], arm))
            over, under = (rows[f"{part}_{number}"].to_numpy() for part in ("numerator", "denominator"))
            found = over.sum() / under.sum()
            error = np.std(over - found * under) / (np.sqrt(len(over)) * under.mean())
            assert abs(found - expected) < 4 * error, (metric, arm, found, expected, error)


def test_exploration_logs_the_chance_of_each_place_and_its_weights_find_other_policies() -> None:
    settings = msgspec.structs.replace(SMALL, readers=4_000, chunk_readers=4_000, exploration=0.5, appeal_decay=1.0)
    chunk = generate_chunk(settings, 0)
    (ranked, uniform, rows) = chunk.policy_sums
    shown = chunk.exposures.filter(pc.equal(chunk.exposures["experiment"], settings.name))
    assert set(shown["propensity"].to_pylist()) == {0.55, 0.05}
    clicks = chunk.outcomes.filter(pc.equal(chunk.outcomes["kind"], "click"))["outcome_id"].to_pylist()
    clicked = np.isin([f"click-{name}" for name in shown["exposure_id"].to_pylist()], clicks)
    propensity = shown["propensity"].to_numpy()
    for target, value in ((propensity > 0.5, ranked / rows), (np.full(len(propensity), 0.1), uniform / rows)):
        earned = clicked * target / propensity
        users = reader_sums(shown["user_id"], earned - value)
        assert abs(earned.mean() - value) < 4 * np.sqrt((users**2).sum()) / len(earned)
    assert ranked > 1.2 * uniform
    history = chunk.exposures.filter(pc.equal(chunk.exposures["experiment"], ""))
    assert pc.unique(history["propensity"]).to_pylist() == [1.0]


def reader_sums(users: pa.ChunkedArray, values: Floats) -> Floats:
    table = pa.table({"user": users, "value": values}).group_by("user").aggregate([("value", "sum")])
    return np.asarray(table["value_sum"].to_numpy())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("written") / "log"
    write_log(found, msgspec.structs.replace(FAULTY, exploration=0.2))
    return found


def test_files_are_the_archives_and_bytes_are_the_seeds(folder: Path, tmp_path: Path) -> None:
    write_log(tmp_path / "again", msgspec.structs.replace(FAULTY, exploration=0.2))
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert len(paths) > 20
    assert all((folder / path).read_bytes() == (tmp_path / "again" / path).read_bytes() for path in paths)
    truth = msgspec.json.decode((folder / TRUTH_FILE).read_bytes(), type=LogTruth)
    for topic, rows in ((Topic.EXPOSURES, truth.planted.exposures), (Topic.OUTCOMES, truth.planted.outcomes)):
        tables = [read_archive_file(path, topic) for path in archive_files(folder, topic)]
        offsets = pa.concat_tables(tables)["kafka_offset"].to_numpy()
        assert sorted(offsets) == list(range(rows))
        assert next(records(tables[0], topic))


def test_a_folder_with_a_log_is_left_alone(folder: Path) -> None:
    with pytest.raises(UsageError, match="empty folder"):
        write_log(folder, SMALL)


def test_the_analysis_reads_it_names_the_faults_and_finds_the_same_in_json_lines(folder: Path, tmp_path: Path) -> None:
    def report(log: Path) -> Report:
        return analyse(read_analysis(log / CONFIG_FILE), log, tmp_path / log.name, now_ms=FAULTY.end_ms + 10**9)

    found = report(folder)
    truth = msgspec.json.decode((folder / TRUTH_FILE).read_bytes(), type=LogTruth).planted
    failed = {check.name for check in found.trust if check.status == "failed"}
    assert {
        "quarantined rows",
        "readers seen in several arms",
        "exposures in another arm than assigned",
    } <= failed
    bad = pa.concat_tables([pq.read_table(path) for path in (tmp_path / folder.name / "quarantine").glob("*")])
    assert bad.num_rows == found.log.quarantined
    reasons = collections.Counter(bad["reason"].to_pylist())
    assert reasons["null"] + reasons["empty"] == truth.anonymous_exposures + truth.anonymous_outcomes
    early = [msgspec.json.decode(row["record"]) for row in bad.to_pylist() if row["reason"] == EARLY]
    assert len({row["outcome_id"] for row in early}) == truth.negative_lags == found.rows.outcomes_before_exposure
    assert reasons[EARLY] == found.log.quarantined - reasons["null"] - reasons["empty"]
    assert found.rows.repeated_exposures == truth.duplicate_exposures
    write_log(tmp_path / "lines", msgspec.structs.replace(FAULTY, exploration=0.2), form="jsonl")
    same = report(tmp_path / "lines")
    assert same.rows == found.rows
    assert [row.control for row in same.comparisons] == [row.control for row in found.comparisons]


def test_settings_are_changed_by_name() -> None:
    found = changed_settings(["readers=5", "cold_lift=0.3", "faults.bots=0.02", "ramp=[0.1]", "readers=6", "name=x"])
    assert (found.readers, found.cold_lift, found.faults.bots, found.ramp, found.name) == (6, 0.3, 0.02, (0.1,), "x")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("cold_lft=0.3", "cold_lift"),
        ("faults.bot=0.3", "faults.bots"),
        ("cold_share=2", "cold_share"),
        ("readers", "a name and a value"),
        ("pool=2", "cannot fill 5 places"),
        ("days=2", "window"),
        ("articles=3", "pool of 10"),
    ],
)
def test_a_wrong_setting_is_named(change: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        changed_settings([change])
