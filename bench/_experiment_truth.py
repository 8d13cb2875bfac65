"""Calibration on whole simulated logs: is the simulator's truth inside the intervals made of the rows that it wrote?"""

import tomllib
from functools import cache
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa

from bench._experiment_calibration import Band, Study
from bench._experiment_worlds import Generator
from offline.experiments.comparison import Interval, relative_lift
from offline.experiments.definition import Analysis, LogFiles
from offline.experiments.delivery import arrival_column
from offline.experiments.encoding import coded_rows, coded_schema
from offline.experiments.estimates import Estimate
from offline.experiments.fold import fold_users
from offline.experiments.log_columns import Kind, log_columns, typed_rows
from offline.experiments.metric_rows import Comparison
from offline.experiments.moments import Moments
from offline.experiments.offpolicy import Estimator, user_sums, value
from offline.experiments.policies import cell_sums, policy_log, policy_rows, reward_model
from offline.experiments.report import Report, build_report
from offline.experiments.splitting import open_session
from offline.experiments.tally import tally_users
from offline.experiments.trust import LogCounts
from offline.simulate.experiment_log import LogChunk, generate_chunk, policy_values
from offline.simulate.log_settings import LogSettings
from offline.simulate.log_truth import Effect, effects
from offline.simulate.log_writing import analysis_config
from schemas.archive import ARRIVED

READERS: Final = 1_500
WORLD: Final = LogSettings(
    readers=READERS,
    chunk_readers=READERS,
    days=7.0,
    history_days=4.0,
    window_days=3.0,
    cold_share=0.5,
    cold_lift=0.3,
    warm_lift=0.1,
    activity_lift=0.1,
    dwell_lift=0.1,
)
EXPLORING: Final = msgspec.structs.replace(WORLD, exploration=0.4, appeal_decay=0.8)
METRICS: Final = ("ctr", "clicks", "dwell", "active-days", "visits")
SEGMENTS: Final = ("cold", "warm")
ESTIMATORS: Final[tuple[Estimator, ...]] = ("ips", "snips", "doubly-robust")
POLICIES: Final = ("ranked", "uniform")


def draw_truth(drawn: Generator) -> dict[str, bool]:
    """The effect of a sound log: lifts of all metrics, of both segments, and the control's own figures."""
    settings = msgspec.structs.replace(WORLD, seed=int(drawn.integers(2**31)))
    chunk = generate_chunk(settings, 0)
    report = report_of(chunk, settings)
    true = {(row.metric, row.segment): row for row in effects(chunk.truth)}
    rows = {(row.metric, "all"): row for row in report.comparisons}
    rows |= {("ctr", row.segment): row.comparison for row in report.segments}
    wanted = [*((metric, "all") for metric in METRICS), *(("ctr", segment) for segment in SEGMENTS)]
    found = {_lift(*at): lift_interval(rows[at]).holds(true[at].lift) for at in wanted}
    return found | {_base(*at): _holds_base(rows[at], true[at]) for at in wanted}


def draw_policies(drawn: Generator) -> dict[str, bool]:
    """What the ranking alone and a uniform draw would have earned, by a log of both mixed."""
    settings = msgspec.structs.replace(EXPLORING, seed=int(drawn.integers(2**31)))
    chunk = generate_chunk(settings, 0)
    found = policy_intervals(chunk, settings)
    true = {one.policy: one.value for one in policy_values(chunk.policy_sums)}
    return {f"{p}, {e}": found[p, e].holds(true[p]) for p in POLICIES for e in ESTIMATORS}


def report_of(chunk: LogChunk, settings: LogSettings) -> Report:
    """As `keenstream experiment analyse` makes it, without its files."""
    analysis = analysis_of(settings)
    shown, done = _coded(chunk, analysis)
    folded = fold_users(shown, done, analysis, watermark_ms=settings.end_ms)
    tally = tally_users(folded.users, analysis.metrics, {}, folded.counts)
    whole = msgspec.structs.replace(tally, recall=folded.recall, delivery=folded.delivered.arms)
    return build_report(whole, analysis, LogCounts(rows=len(shown) + len(done)), watermark_ms=settings.end_ms)


def policy_intervals(chunk: LogChunk, settings: LogSettings) -> dict[tuple[str, Estimator], Interval]:
    """By policy and estimator, as `keenstream experiment offpolicy` makes them."""
    analysis = analysis_of(settings)
    asked = analysis.offpolicy
    assert asked is not None, "the settings explore"
    shown, done = _coded(chunk, analysis, policies=True)
    rows = policy_rows(shown, done, analysis, asked, watermark_ms=settings.end_ms)
    model = reward_model(cell_sums(rows))
    found: dict[tuple[str, Estimator], Interval] = {}
    for policy, target in zip(asked.policies, rows.targets, strict=True):
        moments = Moments.of(user_sums(policy_log(rows, model, target)))
        found |= {(policy.name, name): value(moments, name).interval for name in ESTIMATORS}
    return found


@cache
def analysis_of(settings: LogSettings) -> Analysis:
    """The analysis that is written beside the log."""
    return msgspec.convert(tomllib.loads(analysis_config(settings)), Analysis)


def lift_interval(row: Comparison) -> Interval:
    """At 95 %, whatever family the row belongs to."""
    assert row.control is not None and row.treatment is not None, row.missing
    return relative_lift(row.control, row.treatment).interval


def truth_studies() -> list[Study]:
    """All of this file. Logs are dear: a twentieth of the runs."""
    wanted = [*((metric, "all") for metric in METRICS), *(("ctr", segment) for segment in SEGMENTS)]
    # an interval is for all readers, the truth that of those who came: it holds that rather more often
    wide = Band("coverage", 0.93, 1.0, "of a sample's own truth")
    lifts = {_lift(*at): Band("coverage", 0.93, 0.985, "of a sample's own truth") for at in wanted}
    policies = {
        f"{p}, {e}": Band("coverage", 0.93, 0.99, "of a sample's own truth") for p in POLICIES for e in ESTIMATORS
    }
    return [
        Study("simulated log", draw_truth, lifts | {_base(*at): wide for at in wanted}, 0.05),
        Study("simulated log, other policies", draw_policies, policies, 0.05),
    ]


def _lift(metric: str, segment: str) -> str:
    return f"{metric}{'' if segment == 'all' else f', {segment} readers'}: lift"


def _base(metric: str, segment: str) -> str:
    return f"{metric}{'' if segment == 'all' else f', {segment} readers'}: control"


def _holds_base(row: Comparison, true: Effect) -> bool:
    assert row.control is not None
    return _interval(row.control).holds(true.control)


def _interval(found: Estimate) -> Interval:
    reach = 1.96 * float(np.sqrt(found.variance))
    return Interval(found.value - reach, found.value + reach)


def _coded(chunk: LogChunk, analysis: Analysis, *, policies: bool = False) -> tuple[pa.Table, pa.Table]:
    """Exposures and outcomes as the job shuffles them, up to the watermark as the log's files are read."""
    kinds: tuple[tuple[Kind, pa.Table], ...] = (("exposures", chunk.exposures), ("outcomes", chunk.outcomes))
    made = []
    with open_session() as session:
        for kind, table in kinds:
            columns = log_columns(kind, LogFiles())
            if kind == "outcomes":
                columns.append(arrival_column(ARRIVED))
            schema = coded_schema(kind, tuple(columns), policies=policies)
            made.append(coded_rows(typed_rows(table, columns).rows, schema, analysis, session))
    return made[0], made[1]
