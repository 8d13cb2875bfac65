"""The 21 traps of logged experiments (experiments.md): each fault is planted, and is named or does not mislead."""

from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import statsmodels.api as sm

from offline.experiments.counting import DAY_MS
from offline.experiments.definition import Analysis, Count, Metric, check_analysis
from offline.experiments.fold import FoldCounts
from offline.experiments.gates import Gates
from offline.experiments.moments import Moments
from offline.experiments.offpolicy import Log, diagnose, user_sums, value
from offline.experiments.path import decide, path
from offline.experiments.report import Report
from offline.experiments.strata import estimate_pair
from offline.experiments.tally import Tally, tally_users
from schemas.errors import UsageError
from schemas.experiment import Phase, check_experiments
from schemas.exposure import Exposure
from tests.offline.experiments import log_rows, worlds
from tests.offline.experiments.folding import fold_users
from tests.offline.experiments.log_rows import EXPERIMENT, HALVES, START, START_MS
from tests.offline.experiments.trap_logs import (
    ANALYSIS,
    CLICKED,
    CTR,
    analysed,
    arm_rows,
    check_of,
    clicks_on,
    make_log,
    put,
    report_of,
    row_of,
    tally_of,
)

replace = msgspec.structs.replace
PLAIN = replace(ANALYSIS, metrics=(replace(CTR, cuped=False),), cold_signals=100)  # one stratum, no history


DECLARED = log_rows.ANALYSIS


def judgement(report: Report) -> str:
    return report.verdicts["treatment"].judgement


def test_01_the_error_is_that_of_readers_and_not_of_rows() -> None:
    exposures, outcomes = make_log(1, spread=1.0)
    found = row_of(report_of((exposures, outcomes), PLAIN), "ctr").difference
    inside = exposures.filter(pc.equal(exposures["experiment"], "path"))
    clicked = {row.removeprefix("click-") for row in outcomes["outcome_id"].to_pylist()}
    y = np.array([row in clicked for row in inside["exposure_id"].to_pylist()], dtype=float)
    x = sm.add_constant(arm_rows(inside, "treatment").astype(float))
    reader = np.unique(inside["user_id"].to_pylist(), return_inverse=True)[1]
    clustered = sm.OLS(y, x).fit(cov_type="cluster", cov_kwds={"groups": reader})
    assert found is not None
    assert found.value == pytest.approx(clustered.params[1])
    assert found.standard_error == pytest.approx(clustered.bse[1], rel=0.01)
    assert found.standard_error > 1.3 * sm.OLS(y, x).fit().bse[1]


def test_02_the_ratio_is_total_by_total_and_the_report_says_so() -> None:
    exposures, outcomes = make_log(2)
    empty = [f"e{n}" for n in range(40)]  # answers without articles: readers without a denominator
    more = put(put(exposures.slice(0, 40), "user_id", empty), "position", [0] * 40)
    more = put(put(more, "article_id", [None] * 40), "exposure_id", empty)
    more = put(put(more, "request_id", empty), "experiment", ["path"] * 40)
    more = put(more, "arm", ["control", "treatment"] * 20)
    report = report_of((pa.concat_tables([exposures, more]), outcomes), PLAIN)
    control = exposures.filter(pa.array(arm_rows(exposures, "control")))
    clicked = pc.is_in(control["exposure_id"], pc.utf8_slice_codeunits(outcomes["outcome_id"], 6))
    by_reader = control.append_column("clicked", pc.cast(clicked, pa.float64())).group_by("user_id")
    rates = by_reader.aggregate([("clicked", "mean")])["clicked_mean"]
    found = row_of(report, "ctr").control
    assert found is not None
    assert found.value == pytest.approx(pc.mean(pc.cast(clicked, pa.float64())).as_py())
    assert found.value != pytest.approx(pc.mean(rates).as_py(), rel=0.05)
    assert row_of(report, "ctr").estimand == "all readers' count of click by all readers' count of impression"
    assert sum(report.users.values()) == 1_500 + 40


def test_03_looking_every_day_decides_no_more_than_alpha_allows() -> None:
    planned = replace(DECLARED, decision="group-sequential", expected_users=350)  # half of those who come
    metrics = DECLARED.metrics[:1]
    peeked = always = early = 0
    for seed in range(40):
        tally = tally_users(worlds.users(300 + seed, 700, days=8), metrics, {}, FoldCounts())
        points = path(tally, DECLARED, "treatment")
        peeked += any(point.fixed is not None and not point.fixed.holds(0) for point in points)
        always += any(point.always is not None and not point.always.holds(0) for point in points)
        early += any(_decided_by(day, tally, planned) for day in range(8))
    assert peeked >= 6
    assert always <= 2
    assert early <= 4


def _decided_by(day: int, tally: Tally, analysis: Analysis) -> bool:
    until = Tally({key: cell for key, cell in tally.cells.items() if key.day <= day})
    pair = estimate_pair(until, analysis.metrics[0], 0, ("control", "treatment"), lambda key: True)
    decided = decide(until, analysis, "treatment", pair)
    return decided is not None and decided.conclusive


def test_04_no_relative_lift_over_a_control_that_is_nearly_zero() -> None:
    exposures, outcomes = make_log(4, 400)
    few = outcomes.slice(0, 12)
    row = row_of(report_of((exposures, few), PLAIN), "ctr")
    assert row.lift is None
    assert "too near zero" in row.missing
    assert row.difference is not None
    full = row_of(report_of((exposures, outcomes), PLAIN), "ctr").lift
    assert full is not None
    assert full.interval.low > -1


def test_05_lost_readers_block_the_verdict_also_where_the_rows_are_even() -> None:
    exposures, outcomes = make_log(5, 4_000, lift=0.5)
    number = pc.cast(pc.utf8_slice_codeunits(exposures["user_id"], 3), pa.int64()).to_numpy()
    lost = arm_rows(exposures, "treatment") & (number % 5 == 0)
    report = report_of((exposures.filter(pa.array(~lost)), outcomes))
    assert judgement(report) == "blocked"
    assert check_of(report, "sample ratio, phase 0").status == "failed"
    both = exposures.filter(pa.array(lost))
    # the same number of rows again, by the readers who stayed: rows are even, readers are not
    spare = exposures.filter(pa.array(arm_rows(exposures, "treatment") & ~lost)).slice(0, both.num_rows)
    again = put(spare, "exposure_id", [f"x{n}" for n in range(spare.num_rows)])
    padded = pa.concat_tables([exposures.filter(pa.array(~lost)), again])
    assert judgement(report_of((padded, outcomes))) == "blocked"


def test_05_a_mismatch_that_cancels_over_days_or_groups_is_found() -> None:
    exposures, outcomes = make_log(55, 4_000)
    users = pc.cast(pc.utf8_slice_codeunits(exposures["user_id"], 3), pa.int64()).to_numpy()
    cold = exposures["reader_signals"].to_numpy() < 4
    treatment, control = arm_rows(exposures, "treatment"), arm_rows(exposures, "control")
    lost = (users % 4 == 0) & ((cold & treatment) | (~cold & control & (users % 28 < 12)))
    report = report_of((exposures.filter(pa.array(~lost)), outcomes))
    assert check_of(report, "sample ratio by group").status == "failed"
    days = (exposures["exposed_at"].to_numpy() - START_MS) // DAY_MS
    first: dict[int, int] = {}
    for user, day, inside in zip(users, days, treatment | control, strict=True):
        if inside:
            first[user] = min(day, first.get(user, 99))
    day_of = np.array([first[user] for user in users])
    swapped = (users % 3 == 0) & (((day_of == 2) & treatment) | ((day_of == 4) & control))
    found = check_of(report_of((exposures.filter(pa.array(~swapped)), outcomes)), "sample ratio by day")
    assert found.status == "failed"
    assert "day 2 alone" in found.sentence or "day 4 alone" in found.sentence


def test_06_bots_are_known_by_their_history_and_a_liked_treatment_makes_none() -> None:
    exposures, outcomes = make_log(6, 2_000, lift=0.4)
    bots = _bots(40, requests=250)
    analysis = replace(ANALYSIS, bot_requests=200)
    log = (pa.concat_tables([exposures, bots]), pa.concat_tables([outcomes, clicks_on(bots)]))
    clean, dirty = report_of((exposures, outcomes), analysis), report_of(log, analysis)
    assert row_of(dirty, "ctr").control == row_of(clean, "ctr").control
    assert sum(dirty.users.values()) == 2_040
    assert check_of(dirty, "bots").status == "warning"  # all in one arm
    believed = row_of(report_of(log, replace(analysis, bot_requests=10**6)), "ctr").control
    assert believed is not None
    assert believed.value > 1.5 * row_of(clean, "ctr").control.value  # type: ignore[union-attr]
    # what a reader does after the first exposure, however much, makes no bot: the effect keeps its sign
    busy = _bots(40, requests=250, arm="treatment", before=False)
    found = fold_users(pa.concat_tables([exposures, busy]), outcomes, analysis, watermark_ms=START_MS + 30 * DAY_MS)
    assert pc.sum(found.users["bot"]).as_py() in (0, None)


def _bots(count: int, *, requests: int, arm: str = "control", before: bool = True) -> pa.Table:
    """Each asks `requests` times on the day after its first exposure, and as often on the day before it."""
    each = (2 if before else 1) * requests
    rows = pa.concat_tables([make_log(60, 2)[0].slice(0, 1)] * (count * each))
    minute = np.tile(np.arange(each) - (requests if before else 0), count)
    ids = [f"b{n}" for n in range(count * each)]
    rows = put(put(rows, "exposure_id", ids), "request_id", ids)
    rows = put(rows, "user_id", [f"bot{n}" for n in np.repeat(np.arange(count), each)])
    rows = put(put(rows, "experiment", np.where(minute < 0, "", "path")), "arm", np.where(minute < 0, "", arm))
    return put(rows, "exposed_at", START_MS + 2 * DAY_MS + minute * 60_000)


def test_07_repeated_lines_are_counted_once_and_the_trigger_must_be_logged_alike() -> None:
    exposures, outcomes = make_log(7, lift=0.2)
    twice = (pa.concat_tables([exposures, exposures.slice(0, 3_000)]), pa.concat_tables([outcomes, outcomes]))
    clean, repeated = report_of((exposures, outcomes)), report_of(twice)
    assert repeated.comparisons == clean.comparisons
    assert (repeated.rows.repeated_exposures, repeated.rows.repeated_outcomes) == (3_000, outcomes.num_rows)
    only_shown = put(exposures, "triggered", ~arm_rows(exposures, "control"))
    assert check_of(report_of((only_shown, outcomes)), "triggered readers").status == "warning"
    assert check_of(clean, "triggered readers").status == "passed"


def test_08_readers_of_two_arms_are_in_no_metric_and_are_counted() -> None:
    exposures, outcomes = make_log(8, 3_000)
    wanted = [f"u0-{n}" for n in range(0, 3_000, 50)]
    moved = exposures.filter(pc.and_(pc.is_in(exposures["user_id"], pa.array(wanted)), pa.array(_inside(exposures))))
    other = np.where(arm_rows(moved, "control"), "treatment", "control").tolist()
    again = put(put(moved, "arm", other), "exposure_id", [f"m{n}" for n in range(moved.num_rows)])
    report = report_of(
        (pa.concat_tables([exposures, put(again, "exposed_at", pc.add(again["exposed_at"], 1))]), outcomes)
    )
    assert judgement(report) == "blocked"
    assert "60 of 3,000" in check_of(report, "readers seen in several arms").sentence
    row = row_of(report, "ctr")
    assert row.control is not None
    assert row.treatment is not None
    assert row.control.count + row.treatment.count == 2_940


def _inside(exposures: pa.Table) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = pc.equal(exposures["experiment"], "path").to_numpy(
        zero_copy_only=False
    )
    return found


def test_09_a_ramp_is_analysed_by_phase() -> None:
    """Few cold readers in the treatment of the first phase: too small a stratum must not join the other phase."""
    phases = (
        Phase(starts_at=START, weights={"control": 0.97, "treatment": 0.03}),
        Phase(starts_at=START + timedelta(days=7), weights=HALVES),
    )
    analysis = replace(ANALYSIS, experiment=replace(EXPERIMENT, phases=phases))
    logs = [
        make_log(9, 4_000, treated=0.03, lift=0.1),
        make_log(10, 4_000, lift=0.1, base=0.4, phase=1, first_day=7),
    ]
    both = tuple(pa.concat_tables(list(tables)) for tables in zip(*logs, strict=True))
    shown = [both[0].filter(pa.array(arm_rows(both[0], arm))) for arm in ("control", "treatment")]
    clicked = pc.utf8_slice_codeunits(both[1]["outcome_id"], 6)
    pooled = [pc.mean(pc.cast(pc.is_in(rows["exposure_id"], clicked), pa.float64())).as_py() for rows in shown]
    assert pooled[1] < 0.8 * pooled[0]  # Simpson: the pooled arms show a loss
    lift = row_of(report_of((both[0], both[1]), analysis), "ctr").lift
    assert lift is not None
    assert lift.interval.holds(0.1)
    assert lift.value > 0


def test_10_late_clicks_and_readers_whose_window_has_not_passed_do_not_count() -> None:
    exposures, outcomes = make_log(11)
    late = put(outcomes, "occurred_at", pc.add(outcomes["occurred_at"], 8 * DAY_MS))
    early = put(outcomes, "occurred_at", pc.subtract(outcomes["occurred_at"], 2 * 60_000))
    row = row_of(report_of((exposures, late), PLAIN), "ctr")
    assert "no variation" in row.missing  # nobody has a click in the window
    report = report_of((exposures, early), PLAIN)
    assert report.rows.outcomes_before_exposure == outcomes.num_rows
    young = report_of((exposures, outcomes), PLAIN, last_day=4)
    control, treatment = row_of(young, "ctr").control, row_of(young, "ctr").treatment
    assert control is not None
    assert treatment is not None
    first = fold_users(exposures, outcomes, PLAIN, watermark_ms=START_MS).users["first_at"].to_numpy()
    assert control.count + treatment.count == int((first <= START_MS + 2 * DAY_MS).sum())
    slow = arm_rows(exposures, "treatment")
    delayed = put(exposures, "exposed_at", exposures["exposed_at"].to_numpy() + slow * DAY_MS)
    assert check_of(report_of((delayed, outcomes), PLAIN, last_day=6), "readers whose window").status == "warning"


def test_11_readers_without_clicks_stay_and_rows_without_reader_go(tmp_path: Path) -> None:
    exposures, outcomes = make_log(12, 800)
    nobody = put(exposures.slice(0, 300), "user_id", [None] * 300)
    nobody = put(nobody, "exposure_id", [f"n{n}" for n in range(300)])
    trust = replace(PLAIN.trust, max_quarantined_share=0.2)
    analysis = replace(PLAIN, trust=trust, ends_at=START + timedelta(days=30))
    report = analysed((pa.concat_tables([exposures, nobody]), outcomes), tmp_path, analysis)
    clean = report_of((exposures, outcomes), PLAIN)
    assert report.log.quarantined == 300
    assert report.users == clean.users  # no giant reader
    row, same = row_of(report, "ctr"), row_of(clean, "ctr")
    assert row.control is not None
    assert row.treatment is not None
    assert row.control.count + row.treatment.count == 800
    assert row.control.value == pytest.approx(same.control.value)  # type: ignore[union-attr]


def test_12_the_covariate_ends_before_the_first_exposure() -> None:
    exposures, outcomes = make_log(13, 3_000, lift=0.5)
    report = report_of((exposures, outcomes))
    assert check_of(report, "before the experiment").status == "passed"
    row = row_of(report, "ctr")
    assert row.control is not None
    assert row.lift is not None
    shown = exposures.filter(pa.array(arm_rows(exposures, "control")))
    clicked = pc.is_in(shown["exposure_id"], pc.utf8_slice_codeunits(outcomes["outcome_id"], 6))
    assert row.control.unadjusted == pytest.approx(pc.mean(pc.cast(clicked, pa.float64())).as_py(), rel=0.02)
    assert row.lift.interval.holds(0.5)
    # a covariate that the treatment touches: every click of the treated moved to before their first exposure
    treated = pc.is_in(outcomes["user_id"], exposures.filter(pa.array(arm_rows(exposures, "treatment")))["user_id"])
    moved = pc.if_else(treated, START_MS - DAY_MS, outcomes["occurred_at"])
    touched = put(put(outcomes, "occurred_at", moved), "request_id", [None] * outcomes.num_rows)
    assert check_of(report_of((exposures, touched)), "before the experiment").status == "warning"


def test_13_cold_is_fixed_at_first_exposure_and_segments_are_compared_by_their_interaction() -> None:
    exposures, outcomes = make_log(14, 3_000)
    before = report_of((exposures, outcomes))
    inside = _inside(exposures) & arm_rows(exposures, "treatment")
    grown = exposures["reader_signals"].to_numpy() + inside * (exposures["position"].to_numpy() > 1) * 50
    assert report_of((put(exposures, "reader_signals", grown), outcomes)).segments == before.segments
    found = [report_of(make_log(1_400 + seed, 1_200, lift=0.12)) for seed in range(12)]
    apart = [report for report in found if _one_of_two(report)]
    different = [r for r in apart if (r.segments[0].interaction_p_value or 0) < 0.05]
    assert len(apart) >= 4  # the lift is the same for cold and warm readers
    assert len(different) < len(apart) / 2  # what counting significant segments says would be all of them


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


def test_16_arms_are_told_apart_by_model_and_source_and_no_two_experiments_share_them() -> None:
    """Interference cannot be tested from one log; what can be kept: one experiment at a time, each row's origin."""
    with pytest.raises(msgspec.ValidationError, match="source"):
        msgspec.convert({"exposure_id": "a", "request_id": "a", "user_id": "a"} | _ROW, type=Exposure)
    again = replace(EXPERIMENT, name="other")
    with pytest.raises(UsageError, match="salt"):
        check_experiments([EXPERIMENT, again])
    with pytest.raises(UsageError, match="same time"):
        check_experiments([EXPERIMENT, replace(again, salt="s2")])


_ROW = {"triggered": True, "position": 1, "propensity": 1.0, "exposed_at": START_MS}


def test_17_caps_are_those_of_all_arms_and_the_share_cut_is_told() -> None:
    exposures, outcomes = make_log(18, 4_000)
    shown = exposures.filter(pc.and_(pa.array(_inside(exposures)), pc.equal(exposures["position"], 1)))
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
    first = exposures.filter(pc.and_(pa.array(_inside(exposures)), pc.equal(exposures["position"], 1)))
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


def test_20_one_primary_metric_and_a_family_that_is_corrected_with_its_intervals() -> None:
    with pytest.raises(UsageError, match="exactly one"):
        check_analysis(replace(PLAIN, metrics=(CTR, replace(CLICKED, role="primary"))))
    with pytest.raises(UsageError, match="margin"):
        check_analysis(replace(PLAIN, metrics=(CTR, replace(CLICKED, role="guardrail"))))
    raw = corrected = 0
    for seed in range(12):
        report = worlds.report(worlds.users(2_000 + seed, 300, days=1))
        rows = [row for row in report.comparisons if row.role == "secondary"]
        for row in rows:
            assert row.adjusted is not None
            assert row.difference is not None
            assert row.adjusted.rejected == (not row.difference.interval.holds(0.0))
            assert row.adjusted.alpha < 0.05 or row.adjusted.rejected
        raw += any(row.difference.p_value < 0.05 for row in rows if row.difference)
        corrected += any(row.adjusted.rejected for row in rows if row.adjusted)
    assert raw >= 1  # two of three metrics are the same one: few are ever below 5 %
    assert corrected == 0


@pytest.mark.parametrize("fault", ["no clicks", "one reader", "no impressions"])
def test_21_what_cannot_be_computed_is_said_and_is_no_result(fault: str) -> None:
    exposures, outcomes = make_log(21, 300)
    if fault == "no clicks":
        outcomes = outcomes.slice(0, 0)
    elif fault == "one reader":
        inside = exposures.filter(pa.array(arm_rows(exposures, "treatment")))
        exposures = pc_without(
            exposures, arm_rows(exposures, "treatment") & ~_is(exposures, inside["user_id"][0].as_py())
        )
    else:
        exposures = put(exposures, "article_id", [None] * exposures.num_rows)
    row = row_of(report_of((exposures, outcomes), PLAIN), "ctr")
    assert row.difference is None
    assert row.lift is None
    assert row.belief is None
    assert row.missing
    assert judgement(report_of((exposures, outcomes), PLAIN)) in ("not enough data", "blocked")


def pc_without(table: pa.Table, rows: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> pa.Table:
    return table.filter(pa.array(~rows))


def _is(table: pa.Table, user: str) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = pc.equal(table["user_id"], user).to_numpy(zero_copy_only=False)
    return found
