"""Traps 13 to 21 of logged experiments (experiments.md): what the figures are read as."""

from datetime import timedelta

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from statsmodels.stats.multitest import multipletests

from offline.experiments.comparison import Difference
from offline.experiments.definition import Analysis, Count, Metric, check_analysis
from offline.experiments.fold import FoldCounts
from offline.experiments.gates import Gates
from offline.experiments.metric_rows import Comparison
from offline.experiments.moments import Moments
from offline.experiments.offpolicy import Log, diagnose, user_sums, value
from offline.experiments.report import Report, build_report
from offline.experiments.tally import tally_users
from offline.experiments.trust import LogCounts
from schemas.errors import UsageError
from schemas.experiment import Phase, check_experiments
from schemas.exposure import Exposure
from tests.offline.experiments import worlds
from tests.offline.experiments.log_rows import EXPERIMENT, HALVES, START, START_MS
from tests.offline.experiments.trap_logs import (
    CLICKED,
    CTR,
    DECLARED,
    PLAIN,
    arm_rows,
    check_of,
    clicks_on,
    inside_rows,
    judgement,
    make_log,
    put,
    report_of,
    row_of,
    tally_of,
)

replace = msgspec.structs.replace


def test_13_cold_is_fixed_at_first_exposure() -> None:
    exposures, outcomes = make_log(14, 3_000)
    before = report_of((exposures, outcomes))
    inside = np.flatnonzero(inside_rows(exposures))
    users = exposures["user_id"].take(pa.array(inside)).to_pylist()
    first: dict[str, tuple[int, str]] = {}
    for row, user in zip(inside, users, strict=True):
        at = (exposures["exposed_at"][int(row)].as_py(), exposures["exposure_id"][int(row)].as_py())
        first[user] = min(at, first.get(user, at))
    firsts = pa.array([exposure for _, exposure in first.values()])
    later = inside_rows(exposures) & ~pc.is_in(exposures["exposure_id"], firsts).to_numpy(zero_copy_only=False)
    grown = exposures["reader_signals"].to_numpy() + 50 * (later & arm_rows(exposures, "treatment"))
    after = report_of((put(exposures, "reader_signals", grown), outcomes))
    assert after.segments == before.segments
    # were it fixed at the last exposure, the treatment would have taken cold readers away: arms of cold readers uneven
    cold = {user for user, n in zip(exposures["user_id"].to_pylist(), grown, strict=True) if n > 3}
    assert len(cold) > 2_100 + 300  # seven in ten begin warm


def test_13_the_same_lift_is_no_difference_between_readers_and_another_lift_is_one() -> None:
    """Cold readers click half as often: differences of the arms differ where lifts do not. Significance does too."""
    one_of_two = wrong = absolute = found = 0
    for seed in range(40):
        same, other = _two_kinds(seed, lift=0.15, cold_lift=0.15), _two_kinds(seed, lift=0.0, cold_lift=0.5)
        one_of_two += _one_of_two(same)
        wrong += _interaction_p(same) < 0.05
        found += _interaction_p(other) < 0.05
        effects = [row.comparison.difference for row in same.segments]
        assert effects[0] and effects[1]
        error = np.hypot(effects[0].standard_error, effects[1].standard_error)
        apart = abs(effects[0].value - effects[1].value) / error
        absolute += apart > 1.96
    assert one_of_two >= 5
    assert wrong <= 6  # 2 expected of 40: more has a chance of 1 in 300
    assert absolute >= 8
    assert found >= 36
    assert same.segments[0].interaction is not None
    assert same.segments[0].interaction.scale == "relative"


def _two_kinds(seed: int, *, lift: float, cold_lift: float) -> Report:
    """Worlds whose cold readers click half as often."""
    warm, cold = (
        worlds.users(n, 4_000, lift=gain, base=base, days=1)
        for n, gain, base in ((5_000 + seed, lift, 1.0), (6_000 + seed, cold_lift, 0.5))
    )
    tables = [worlds.replaced(table, "cold", [is_cold] * 4_000) for table, is_cold in ((warm, False), (cold, True))]
    return worlds.report(pa.concat_tables(tables), replace(DECLARED, metrics=(replace(CTR, cuped=False),)))


def _interaction_p(report: Report) -> float:
    found = report.segments[0].interaction_p_value
    assert found is not None
    return found


def test_13_segments_of_all_arms_are_one_family_and_few_readers_are_none() -> None:
    analysis, other = replace(DECLARED, metrics=(replace(CTR, cuped=False),)), 0
    for seed in (7, 709, 711):
        table = worlds.users(seed, 4_000, lift=0.09, cold_lift=0.14, days=1)
        rows = [row.comparison for row in worlds.report(table, analysis).segments]
        raw = [_segment_alone(table, analysis, cold).p_value for cold in (True, False)]
        expected = multipletests(raw, method="fdr_bh")[1]
        assert [row.adjusted.p_value for row in rows if row.adjusted] == pytest.approx(expected)
        other += multipletests(raw, method="holm")[1] != pytest.approx(expected)
        for row in rows:
            assert row.adjusted is not None
            assert row.difference is not None
            assert row.adjusted.rejected == (not row.difference.interval.holds(0.0))
    assert other >= 1  # Holm would say something else
    table = worlds.users(7, 8_000, lift=0.12, cold_lift=0.0)
    tiny = table.filter(pa.array(~table["cold"].to_numpy(zero_copy_only=False) | (np.arange(8_000) < 300)))
    cold, warm = worlds.report(tiny, analysis).segments
    assert "fewer than 50 readers in an arm" in cold.comparison.missing
    assert cold.comparison.difference is None
    assert cold.interaction_p_value is None
    assert warm.comparison.difference is not None


def _segment_alone(table: pa.Table, analysis: Analysis, cold: bool) -> Difference:
    kept = table.filter(pc.equal(table["cold"], cold))
    found = worlds.report(kept, analysis).comparisons[0].difference
    assert found is not None
    return found


def _one_of_two(report: Report) -> bool:
    shown = [row.comparison.difference for row in report.segments]
    return sum(found is not None and found.p_value < 0.05 for found in shown) == 1


def test_14_a_triggered_effect_is_diluted_by_the_trigger_rate() -> None:
    first, second = make_log(15, 2_500, lift=0.4), make_log(16, 2_500, prefix="w")
    quiet = put(second[0], "triggered", [False] * second[0].num_rows)
    log = (pa.concat_tables([first[0], quiet]), pa.concat_tables([first[1], second[1]]))
    analysis = replace(PLAIN, metrics=(replace(CLICKED, role="primary", cuped=False),))
    everyone = row_of(report_of(log, analysis), "clicks").difference
    triggered = row_of(report_of(log, replace(analysis, only_triggered=True)), "clicks").difference
    rest = row_of(report_of((quiet, second[1]), analysis), "clicks").difference
    assert everyone is not None
    assert triggered is not None
    assert rest is not None
    assert everyone.value == pytest.approx(0.5 * triggered.value + 0.5 * rest.value, rel=0.15)
    assert abs(rest.value) < 2.5 * rest.standard_error  # the untriggered are an A/A test
    assert triggered.value / triggered.standard_error > everyone.value / everyone.standard_error


def test_15_half_weeks_are_named() -> None:
    whole, half = (report_of(make_log(17, 1_000, days=days)) for days in (7, 10))
    assert check_of(whole, "whole weeks").status == "passed"
    assert check_of(half, "whole weeks").status == "warning"


def test_16_no_two_experiments_share_readers_and_each_row_names_its_source() -> None:
    """Interference cannot be tested from one log: what can be kept is one experiment at a time, each row's origin."""
    assert msgspec.convert(_ROW | {"source": "student"}, type=Exposure).source == "student"
    with pytest.raises(msgspec.ValidationError, match="missing required field `source`"):
        msgspec.convert(_ROW, type=Exposure)
    with pytest.raises(msgspec.ValidationError, match=r"Invalid enum value 'somewhere' - at `\$.source`"):
        msgspec.convert(_ROW | {"source": "somewhere"}, type=Exposure)
    other = replace(EXPERIMENT, name="other", salt="s2")
    ended = replace(EXPERIMENT, ends_at=START + timedelta(days=7))
    afterwards = replace(other, phases=(Phase(starts_at=START + timedelta(days=7), weights=HALVES),))
    check_experiments([ended, afterwards])
    with pytest.raises(UsageError, match="salt"):
        check_experiments([ended, replace(afterwards, salt=EXPERIMENT.salt)])
    with pytest.raises(UsageError, match="same time"):
        check_experiments([EXPERIMENT, other])


def test_16_the_path_in_the_control_and_a_change_of_model_are_named() -> None:
    exposures, outcomes = make_log(22, 2_000, lift=0.1)
    clean = report_of((exposures, outcomes))
    assert check_of(clean, "places of the path").status == "passed"
    assert check_of(clean, "places of the path").sentence.startswith("0 of ")
    assert check_of(clean, "one version").sentence == "treatment, model: s s 100.0%; treatment, prompt: s 100.0%"
    assert check_of(clean, "one version").status == "passed"
    assert "Readers of all arms share" in clean.caveats[0]
    number = np.arange(exposures.num_rows)
    leaked = arm_rows(exposures, "control") & (number % 100 == 0)
    found = report_of((put(exposures, "model", np.where(leaked, "s", exposures["model"].to_pylist())), outcomes))
    assert judgement(found) == "blocked"
    assert check_of(found, "places of the path").status == "failed"
    newer = arm_rows(exposures, "treatment") & (number % 4 == 0)
    versions = np.where(newer, "2", exposures["model_version"].to_pylist())
    mixed = report_of((put(exposures, "model_version", versions), outcomes))
    assert check_of(mixed, "one version").status == "warning"
    assert "treatment, model: s 2 2" in check_of(mixed, "one version").sentence
    assert judgement(mixed) != "blocked"


_ROW = dict.fromkeys(("exposure_id", "request_id", "user_id"), "a") | {
    "triggered": True,
    "position": 1,
    "propensity": 1.0,
    "exposed_at": START_MS,
}


def test_17_caps_are_those_of_all_arms_and_the_share_cut_is_told() -> None:
    exposures, outcomes = make_log(18, 4_000)
    shown = exposures.filter(pc.and_(pa.array(inside_rows(exposures)), pc.equal(exposures["position"], 1)))
    seconds = 30.0 * np.random.default_rng(18).lognormal(0, 1, shown.num_rows)
    dwell = put(clicks_on(shown, "dwell"), "value", np.where(np.arange(len(seconds)) == 0, 1e7, seconds))
    capped = Metric(name="dwell", role="primary", numerator=Count(of="dwell", aggregate="sum", cap=0.99), cuped=False)
    free = replace(capped, numerator=replace(capped.numerator, cap=None))
    tables = (exposures, pa.concat_tables([outcomes, dwell]))
    with_cap, without = (
        row_of(report_of(tables, replace(PLAIN, metrics=(metric,))), "dwell") for metric in (capped, free)
    )
    assert with_cap.difference is not None
    assert without.difference is not None
    assert with_cap.difference.standard_error < 0.01 * without.difference.standard_error
    assert with_cap.capped_share == pytest.approx(0.01, abs=0.002)
    # three times the seconds in one arm: a cap of each arm's own would cut 1 % of both and leave the threefold
    treated = pc.is_in(dwell["user_id"], exposures.filter(pa.array(arm_rows(exposures, "treatment")))["user_id"])
    tripled = put(dwell, "value", seconds * np.where(treated.to_numpy(zero_copy_only=False), 3.0, 1.0))
    folded = tally_of((exposures, tripled), replace(PLAIN, metrics=(capped,)))
    cut = {arm: folded.total(lambda key, arm=arm: key.arm == arm).capped[0] for arm in HALVES}  # type: ignore[misc]
    assert cut["treatment"] > 5 * cut["control"]
    with pytest.raises(UsageError, match="no cap"):
        check_analysis(replace(PLAIN, metrics=(replace(capped, quantile=0.5),)))


def test_18_values_far_from_zero_keep_their_variance() -> None:
    exposures, _ = make_log(19, 600)
    first = exposures.filter(pc.and_(pa.array(inside_rows(exposures)), pc.equal(exposures["position"], 1)))
    users = first.group_by("user_id", use_threads=False).aggregate([("exposure_id", "first"), ("exposed_at", "min")])
    dwell = clicks_on(first.filter(pc.is_in(first["exposure_id"], users["exposure_id_first"])), "dwell")
    seconds = 1e9 + np.random.default_rng(19).random(dwell.num_rows)  # squares differ in the 19th digit
    metric = Metric(name="dwell", role="primary", numerator=Count(of="dwell", aggregate="sum"), cuped=False)
    analysis = replace(PLAIN, metrics=(metric,))
    found = row_of(report_of((exposures, put(dwell, "value", seconds)), analysis), "dwell").control
    arm = dict(zip(first["user_id"].to_pylist(), first["arm"].to_pylist(), strict=True))
    own = np.array([x for x, u in zip(seconds, dwell["user_id"].to_pylist(), strict=True) if arm[u] == "control"])
    assert found is not None
    assert found.count == len(own)
    assert found.variance == pytest.approx(own.var(ddof=1) / len(own), rel=1e-4)


def test_19_a_policy_is_judged_by_readers_behind_gates_and_the_log_s_own_value_comes_back() -> None:
    drawn = np.random.default_rng(20)
    user = np.repeat(np.arange(600), 12)
    logging, other = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    item = drawn.choice(3, size=len(user), p=logging)
    taste = drawn.gamma(1.5, 0.1, 600)[user] * np.array([0.5, 1.0, 1.5])[item]
    reward = (drawn.random(len(user)) < np.minimum(1, taste)).astype(float)
    zeros = np.zeros(len(user))
    log = Log(
        user=user.astype(float),
        reward=reward,
        propensity=logging[item],
        target=other[item],
        predicted=zeros,
        predicted_target=zeros,
    )
    by_reader, by_row = (
        value(Moments.of(user_sums(one)), "ips") for one in (log, replace(log, user=np.arange(len(user), dtype=float)))
    )
    assert by_reader.value == pytest.approx(by_row.value)
    assert by_reader.standard_error > 1.2 * by_row.standard_error
    own = value(Moments.of(user_sums(replace(log, target=log.propensity))), "ips")
    assert own.value == pytest.approx(reward.mean())
    gates = diagnose(Moments.of(user_sums(log)), float((log.target / log.propensity).max()), Gates())
    assert gates.failures == ()
    blind = replace(log, target=np.where(item == 2, 0.0, log.target))
    assert "lacks support" in diagnose(Moments.of(user_sums(blind)), 1.0, Gates()).failures[0]
    # what the other policy earns when it is really shown
    item = drawn.choice(3, size=len(user), p=other)
    shown = np.minimum(1, drawn.gamma(1.5, 0.1, 600)[user] * np.array([0.5, 1.0, 1.5])[item]).reshape(600, 12).mean(1)
    apart = by_reader.value - shown.mean()
    assert abs(apart) < 3 * np.hypot(by_reader.standard_error, shown.std() / np.sqrt(600))


def test_20_one_primary_metric_and_margins_are_declared() -> None:
    with pytest.raises(UsageError, match="exactly one"):
        check_analysis(replace(PLAIN, metrics=(CTR, replace(CLICKED, role="primary"))))
    with pytest.raises(UsageError, match="margin"):
        check_analysis(replace(PLAIN, metrics=(CTR, replace(CLICKED, role="guardrail"))))


def test_20_the_family_is_the_secondary_metrics_each_with_the_interval_of_its_level() -> None:
    """Three weak effects: what each metric alone would call found is not, with two others beside it."""
    guardrail = replace(DECLARED.metrics[3], role="guardrail", margin=0.05, name="guard")
    metrics = (*DECLARED.metrics[:4], guardrail, DECLARED.metrics[5])
    analysis = replace(DECLARED, metrics=metrics)
    changed = 0
    for seed in range(5):
        table = worlds.users(2_000 + seed, 500, lift=0.12, days=1)
        report = worlds.report(table, analysis)
        family = [row for row in report.comparisons if row.role == "secondary"]
        alone = [_alone(table, analysis, row.metric).difference for row in family]
        raw = [row.p_value for row in alone if row]
        rejected, expected = multipletests(raw, alpha=0.05, method="holm")[:2]
        assert [row.adjusted.p_value for row in family if row.adjusted] == pytest.approx(expected)
        assert [row.adjusted.rejected for row in family if row.adjusted] == rejected.tolist()
        for row in family:
            assert row.adjusted is not None
            again = _alone(table, replace(analysis, alpha=row.adjusted.alpha), row.metric).difference
            assert again is not None
            assert row.difference == again  # the interval is of the corrected level
            assert row.adjusted.rejected == (not again.interval.holds(0.0))
        changed += sum(p < 0.05 for p in raw) > sum(rejected)
        main, guarded = (next(r for r in report.comparisons if r.role == role) for role in ("primary", "guardrail"))
        assert main.adjusted is None
        assert main.difference == _alone(table, analysis, "ctr").difference
        assert guarded.adjusted is None
        assert guarded.non_inferiority == _alone(table, analysis, "guard").non_inferiority
    assert changed >= 1


def test_20_ten_secondary_metrics_are_a_family_by_their_false_discoveries() -> None:
    """Half of them move."""
    table, drawn = worlds.users(2_100, 3_000, days=1), np.random.default_rng(3)
    treated = pc.equal(table["arm"], "treatment").to_numpy(zero_copy_only=False)
    metrics = list(DECLARED.metrics[:1])
    for number in range(1, 11):
        clicked = (drawn.random(3_000) < 0.3 + 0.055 * treated * (number % 2)).astype(float)
        values = {"numerator": clicked, "denominator": np.ones(3_000), "pre_numerator": np.zeros(3_000)}
        for name in ("numerator", "denominator", "pre_numerator", "pre_denominator"):
            table = _with(table, f"{name}_{number}", values.get(name, np.ones(3_000)))
        metrics.append(replace(DECLARED.metrics[1], name=f"clicked-{number}"))
    analysis = replace(DECLARED, metrics=tuple(metrics), correction="benjamini-hochberg")
    family = [row for row in worlds.report(table, analysis).comparisons if row.role == "secondary"]
    alone = [_alone(table, analysis, row.metric).difference for row in family]
    raw = [row.p_value for row in alone if row]
    rejected, expected = multipletests(raw, alpha=0.05, method="fdr_bh")[:2]
    assert [row.adjusted.p_value for row in family if row.adjusted] == pytest.approx(expected)
    assert 0 < sum(multipletests(raw, alpha=0.05, method="holm")[0]) < sum(rejected)  # another correction, more found


def _with(table: pa.Table, name: str, values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> pa.Table:
    return worlds.replaced(table, name, values) if name in table.column_names else table.append_column(name, [values])


def _alone(table: pa.Table, analysis: Analysis, metric: str) -> Comparison:
    """As if it were in no family: every other metric is a guardrail."""
    tally = tally_users(table, analysis.metrics, {}, FoldCounts())
    guarded = [replace(one, role="guardrail", margin=one.margin or 0.5) for one in analysis.metrics]
    number = next(n for n, one in enumerate(analysis.metrics) if one.name == metric)
    first = number if analysis.metrics[number].role != "guardrail" else 0
    guarded[first] = replace(analysis.metrics[first], role="primary")
    metrics = tuple(guarded)
    return row_of(build_report(tally, replace(analysis, metrics=metrics), LogCounts()), metric)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("no clicks", "no variation in either arm"),
        ("one reader", "fewer than two users in an arm"),
        ("no impressions", "the denominator is zero for all users"),
    ],
)
def test_21_what_cannot_be_computed_is_said_and_is_no_result(fault: str, said: str) -> None:
    exposures, outcomes = make_log(21, 300)
    analysis = PLAIN
    if fault == "no clicks":
        outcomes = outcomes.slice(0, 0)
    elif fault == "one reader":
        inside = exposures.filter(pa.array(arm_rows(exposures, "treatment")))
        exposures = pc_without(
            exposures, arm_rows(exposures, "treatment") & ~_is(exposures, inside["user_id"][0].as_py())
        )
        few = Phase(starts_at=START, weights={"control": 0.99, "treatment": 0.01})  # so that the sample ratio is sound
        analysis = replace(PLAIN, experiment=replace(EXPERIMENT, phases=(few,)))
    else:
        exposures = put(exposures, "article_id", [None] * exposures.num_rows)
    report = report_of((exposures, outcomes), analysis)
    row = row_of(report, "ctr")
    assert row.difference is None
    assert row.lift is None
    assert row.belief is None
    assert row.missing == said
    assert judgement(report) == "not enough data"


def pc_without(table: pa.Table, rows: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> pa.Table:
    return table.filter(pa.array(~rows))


def _is(table: pa.Table, user: str) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = pc.equal(table["user_id"], user).to_numpy(zero_copy_only=False)
    return found
