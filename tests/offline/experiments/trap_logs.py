"""Logs for the traps: drawn in vectors, sound, with a known lift; each trap then plants its fault."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from offline.experiments.analyse import analyse
from offline.experiments.caps import caps_of, count_values
from offline.experiments.check import Check
from offline.experiments.counting import DAY_MS
from offline.experiments.definition import Analysis, Count, LogFiles, Metric
from offline.experiments.fold import FoldCounts
from offline.experiments.metric_rows import Comparison
from offline.experiments.report import Report, build_report
from offline.experiments.tally import Tally, tally_users
from offline.experiments.trust import LogCounts
from tests.offline.experiments import log_rows
from tests.offline.experiments.folding import fold_users
from tests.offline.experiments.log_rows import CLICKS, EXPERIMENT, IMPRESSIONS, START_MS

PLACES, HISTORY_DAYS, WINDOW_DAYS = 4, 5, 2
MINUTE_MS = 60_000
_VERSIONS = ("model", "model_version", "prompt_version")
Log = tuple[pa.Table, pa.Table]  # exposures, outcomes
Numbers = NDArray[Any]

CTR = Metric(name="ctr", role="primary", numerator=CLICKS, denominator=IMPRESSIONS)
CLICKED = Metric(name="clicks", numerator=CLICKS)
DWELL = Metric(name="dwell", numerator=Count(of="dwell", aggregate="sum"))
ANALYSIS = Analysis(
    experiment=EXPERIMENT,
    control="control",
    window_days=float(WINDOW_DAYS),
    history_days=float(HISTORY_DAYS),
    decision="fixed",
    log=LogFiles(check_assignment=False),
    metrics=(CTR, CLICKED, DWELL),
)

PLAIN = msgspec.structs.replace(  # one stratum, no history
    ANALYSIS, metrics=(msgspec.structs.replace(CTR, cuped=False),), cold_signals=100
)
DECLARED = log_rows.ANALYSIS


def make_log(
    seed: int,
    readers: int = 1_500,
    *,
    lift: float = 0.0,
    treated: float = 0.5,
    base: float = 1.0,
    phase: int = 0,
    first_day: int = 0,
    days: int = 7,
    spread: float = 0.6,
    prefix: str = "u",
) -> Log:
    """Readers come on `days` days, see PLACES articles at each request, click by taste; half of them have a history."""
    drawn = np.random.default_rng(seed)
    treatment = drawn.random(readers) < treated
    first_at = START_MS + first_day * DAY_MS + (drawn.random(readers) * days * DAY_MS).astype(np.int64)
    taste = 0.25 * base * np.exp(drawn.normal(-(spread**2) / 2, spread, readers))
    cold = drawn.random(readers) < 0.3
    now = drawn.poisson(1.5 * np.exp(drawn.normal(0, spread, readers))) + 1
    taste /= np.sqrt(now)  # who reads more clicks a smaller part
    before = np.where(cold, 0, drawn.poisson(3.0, readers))
    reader = np.concatenate([np.repeat(np.arange(readers), count) for count in (now, before)])
    inside = np.arange(len(reader)) < now.sum()
    first = np.zeros(len(reader), dtype=bool)
    first[np.cumsum(now) - now] = True
    after = np.where(first, 0.0, drawn.random(len(reader)) * WINDOW_DAYS * 0.99)
    at = first_at[reader] + np.where(inside, after, -(0.01 + 0.98 * drawn.random(len(reader))) * HISTORY_DAYS) * DAY_MS
    requests = _Requests(prefix, reader, at.astype(np.int64), inside, treatment[reader], cold[reader], phase)
    exposures = requests.exposures()
    gain = np.where(inside & treatment[reader], 1 + lift, 1.0)
    rate = np.minimum(1.0, taste[reader] * gain)
    clicked = drawn.random(len(reader) * PLACES) < np.repeat(rate, PLACES)
    return exposures, clicks_on(exposures.filter(pa.array(clicked)))


class _Requests(msgspec.Struct, frozen=True, eq=False):
    """All arrays [n], one for each request."""

    prefix: str
    reader: Numbers
    at: Numbers
    inside: Numbers
    treatment: Numbers
    cold: Numbers
    phase: int

    def exposures(self) -> pa.Table:
        """PLACES rows for each."""
        names = [f"{self.prefix}{self.phase}-{n}" for n in self.reader]
        requests = [f"r{self.prefix}{self.phase}-{n}" for n in range(len(self.reader))]
        places = np.tile(np.arange(1, PLACES + 1), len(self.reader))

        def rows(values: Any) -> Numbers:
            return np.repeat(np.asarray(values), PLACES)

        count, path = len(places), rows(self.inside & self.treatment)
        return pa.table(
            {
                "exposure_id": [f"{r}:{p}" for r, p in zip(rows(requests), places, strict=True)],
                "request_id": pa.array(rows(requests), pa.string()),
                "user_id": pa.array(rows(names), pa.string()),
                "experiment": pa.array(rows(np.where(self.inside, "path", "")), pa.string()),
                "arm": pa.array(
                    rows(np.where(~self.inside, "", np.where(self.treatment, "treatment", "control"))), pa.string()
                ),
                "phase": np.full(count, self.phase),
                "triggered": np.ones(count, dtype=bool),
                "position": places,
                "article_id": [f"a{n % 97}" for n in range(count)],
                "propensity": np.full(count, 1.0),
                "source": pa.array(np.where(path, "student", "recent"), pa.string()),
                "exclusive": np.zeros(count, dtype=bool),
                "query_slot": pa.array(places - 1, pa.int64()),
                "list_age_ms": np.full(count, 60_000),
                **{name: pa.array(np.where(path, "s", ""), pa.string()) for name in _VERSIONS},
                "reader_signals": rows(np.where(self.cold, 1, 9)),
                "exposed_at": rows(self.at),
            }
        )


def clicks_on(shown: pa.Table, kind: str = "click", late_ms: int = MINUTE_MS) -> pa.Table:
    """One outcome for each of these exposures."""
    count = shown.num_rows
    return pa.table(
        {
            "outcome_id": pa.array([f"{kind}-{name}" for name in shown["exposure_id"].to_pylist()], pa.string()),
            "request_id": shown["request_id"],
            "user_id": shown["user_id"],
            "article_id": shown["article_id"],
            "kind": pa.array([kind] * count, pa.string()),
            "value": np.ones(count),
            "occurred_at": pc.add(shown["exposed_at"], late_ms),
        }
    )


def put(table: pa.Table, name: str, values: Any) -> pa.Table:
    at = table.column_names.index(name)
    return table.set_column(at, name, pa.array(values, table.schema.field(name).type))


def arm_rows(exposures: pa.Table, arm: str) -> Numbers:
    """[n] of booleans: the rows of the experiment in this arm."""
    found: Numbers = pc.equal(exposures["arm"], arm).to_numpy(zero_copy_only=False)
    return found


def inside_rows(exposures: pa.Table) -> Numbers:
    """[n] of booleans: the rows of the experiment."""
    found: Numbers = pc.equal(exposures["experiment"], "path").to_numpy(zero_copy_only=False)
    return found


def judgement(report: Report) -> str:
    return report.verdicts["treatment"].judgement


def tally_of(log: Log, analysis: Analysis = ANALYSIS, *, last_day: int = 30) -> Tally:
    """Through the fold, as the job does it; the watermark is `last_day` days after the start."""
    folded = fold_users(*log, analysis, watermark_ms=START_MS + last_day * DAY_MS)
    caps = caps_of(count_values(folded.users, analysis.metrics), analysis.metrics)
    tally = tally_users(folded.users, analysis.metrics, caps, folded.counts)
    return msgspec.structs.replace(tally, recall=folded.recall, delivery=folded.delivered.arms)


def report_of(log: Log, analysis: Analysis = ANALYSIS, *, last_day: int = 30) -> Report:
    return build_report(tally_of(log, analysis, last_day=last_day), analysis, LogCounts(rows=len(log[0])))


def analysed(log: Log, folder: Path, analysis: Analysis = ANALYSIS) -> Report:
    """Through files and the Beam job."""
    for name, table in zip(("exposures", "outcomes"), log, strict=True):
        (folder / "log" / name).mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / "log" / name / "part.parquet", row_group_size=5_000)
    return analyse(analysis, folder / "log", folder / "out", now_ms=START_MS + 365 * DAY_MS)


def row_of(report: Report, metric: str) -> Comparison:
    return next(row for row in report.comparisons if row.metric == metric)


def check_of(report: Report, name: str) -> Check:
    return next(check for check in report.trust if check.name.startswith(name))


def counts_of(report: Report) -> FoldCounts:
    return report.rows
