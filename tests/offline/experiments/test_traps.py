"""Traps 1 to 12 of logged experiments (experiments.md): each fault is planted, and is named or does not mislead.

test_traps_reading.py has 13 to 21.
"""

from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import statsmodels.api as sm

from offline.experiments.counting import DAY_MS
from offline.experiments.definition import Analysis
from offline.experiments.fold import FoldCounts
from offline.experiments.path import Decided, decide, path
from offline.experiments.strata import estimate_pair
from offline.experiments.tally import Tally, tally_users
from schemas.experiment import Phase
from tests.offline.experiments import worlds
from tests.offline.experiments.folding import fold_users
from tests.offline.experiments.log_rows import EXPERIMENT, HALVES, START, START_MS
from tests.offline.experiments.trap_logs import (
    ANALYSIS,
    DECLARED,
    PLAIN,
    Log,
    analysed,
    arm_rows,
    check_of,
    clicks_on,
    inside_rows,
    judgement,
    make_log,
    put,
    report_of,
    row_of,
)

replace = msgspec.structs.replace


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
        decided = [_decided_by(day, tally, planned) for day in range(8)]
        early += any(found is not None and found.conclusive for found in decided)
        assert decided[7] is not None
        assert decided[7] == decided[6] == decided[5]  # the expected readers were there: later ones decide nothing
        assert points[-1].always is not None
        looked = _decided_by(7, tally, replace(DECLARED, metrics=metrics))
        assert looked is not None
        assert looked.interval == points[-1].always
    assert peeked >= 6
    assert always <= 2
    assert early <= 4


def _decided_by(day: int, tally: Tally, analysis: Analysis) -> Decided | None:
    until = Tally({key: cell for key, cell in tally.cells.items() if key.day <= day})
    pair = estimate_pair(until, analysis.metrics[0], 0, ("control", "treatment"), lambda key: True)
    return decide(until, analysis, "treatment", pair)


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
    lenient = replace(analysis.trust, max_leaked_share=1.0)  # a bot of this log is shown the path's places everywhere
    believed = row_of(report_of(log, replace(analysis, bot_requests=10**6, trust=lenient)), "ctr").control
    assert believed is not None
    assert believed.value > 1.5 * row_of(clean, "ctr").control.value  # type: ignore[union-attr]
    assert clean.with_bots == []  # where nobody was taken for one
    (told,) = report_of(log, replace(analysis, trust=lenient)).with_bots  # and without them, beside it
    assert told.control is not None
    assert told.control.value == pytest.approx(believed.value)
    assert (told.metric, told.control.count) == ("ctr", believed.count)
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
    chosen = pc.is_in(exposures["user_id"], pa.array(wanted))
    moved = exposures.filter(pc.and_(chosen, pa.array(inside_rows(exposures))))
    other = np.where(arm_rows(moved, "control"), "treatment", "control").tolist()
    again = put(put(moved, "arm", other), "exposure_id", [f"m{n}" for n in range(moved.num_rows)])
    log = (pa.concat_tables([exposures, put(again, "exposed_at", pc.add(again["exposed_at"], 1))]), outcomes)
    report = report_of(log)
    assert judgement(report) == "blocked"
    assert "60 of 3,000" in check_of(report, "readers seen in several arms").sentence
    lenient = replace(ANALYSIS.trust, max_crossover_share=0.1, max_leaked_share=1.0)
    row = row_of(report_of(log, replace(ANALYSIS, trust=lenient)), "ctr")
    assert row.control is not None
    assert row.treatment is not None
    assert row.control.count + row.treatment.count == 2_940


def test_09_a_ramp_is_analysed_by_phase() -> None:
    """Few cold readers in the treatment of the first phase: they must not join the other, larger phase."""
    phases = (
        Phase(starts_at=START, weights={"control": 0.97, "treatment": 0.03}),
        Phase(starts_at=START + timedelta(days=7), weights=HALVES),
    )
    analysis = replace(ANALYSIS, experiment=replace(EXPERIMENT, phases=phases))
    logs = [
        make_log(9, 4_000, treated=0.03, lift=0.1),
        make_log(10, 5_000, lift=0.1, base=0.4, phase=1, first_day=7),
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
    plain = row_of(report_of((both[0], both[1]), replace(analysis, metrics=PLAIN.metrics)), "ctr")
    assert plain.control and plain.treatment
    assert (plain.control.value, plain.treatment.value) == pytest.approx(_by_strata(logs, analysis.cold_signals))


def _by_strata(logs: list[Log], cold_signals: int) -> list[float]:
    """[arm]: the first phase as one stratum, as too few of its cold readers are treated; then cold and warm."""
    strata = []
    for phase, (exposures, clicks) in enumerate(logs):
        shown = exposures.filter(pa.array(inside_rows(exposures)))
        clicked = pc.is_in(shown["exposure_id"], pc.utf8_slice_codeunits(clicks["outcome_id"], 6)).to_numpy()
        cold = shown["reader_signals"].to_numpy() <= cold_signals
        treated = arm_rows(shown, "treatment")
        assert phase or pc.count_distinct(shown["user_id"].filter(pa.array(cold & treated))).as_py() < 50
        for own in [np.ones(len(cold), dtype=bool)] if phase == 0 else [cold, ~cold]:
            strata.append([clicked[own & ~treated].mean(), clicked[own & treated].mean(), own.sum()])
    control, treatment, size = np.array(strata).T
    return [float(rates @ size / size.sum()) for rates in (control, treatment)]


def test_10_late_clicks_and_readers_whose_window_has_not_passed_do_not_count() -> None:
    exposures, outcomes = make_log(11)
    late = put(outcomes, "occurred_at", pc.add(outcomes["occurred_at"], 8 * DAY_MS))
    early = put(outcomes, "occurred_at", pc.subtract(outcomes["occurred_at"], 2 * 60_000))
    row = row_of(report_of((exposures, late), PLAIN), "ctr")
    assert "no variation" in row.missing  # nobody has a click in the window
    report = report_of((exposures, early), PLAIN)
    assert report.rows.outcomes_before_exposure == outcomes.num_rows
    assert "no variation" in row_of(report, "ctr").missing  # nor do those dated before what they follow
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
