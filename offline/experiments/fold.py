"""All rows of some users, folded to one row for each user and phase: the unit of every test that follows.

Pure: two Arrow tables in, one out, the same whatever the order of rows and however often a row is repeated. The work is
DuckDB's, in vectors, over a bucket of users that fits in memory.
"""

from typing import Final

import duckdb
import msgspec
import numpy as np
import pyarrow as pa

from offline.experiments.definition import Aggregate, Analysis, Count
from offline.experiments.delivery import Delivered, trace_outcomes, with_arrival
from offline.experiments.moments import Moments
from offline.experiments.novelty import age_moments, cohort_ages, follows
from offline.experiments.places import count_places
from offline.experiments.recall_path import RecallPath

DAY_MS: Final = 86_400_000
_HOUR_MS: Final = 3_600_000

_AGGREGATES: Final[dict[Aggregate, str]] = {
    "count": "count(*) FILTER (WHERE {holds})",
    "sum": "coalesce(sum(value) FILTER (WHERE {holds}), 0)",
    "any": "count(*) FILTER (WHERE {holds}) > 0",
    "days": "count(DISTINCT time_ms // {day}) FILTER (WHERE {holds})",
    "articles": "count(DISTINCT article_id) FILTER (WHERE {holds})",
}

# A repeated log line repeats its id. The earliest is kept: at-least-once delivery only ever repeats later. Few are
# repeated: grouping only those, and passing the others through, takes half the time of grouping all.
_HAPPENED: Final = """
CREATE TEMP TABLE repeated AS SELECT exposure_id FROM exposures GROUP BY exposure_id HAVING count(*) > 1;
CREATE TEMP TABLE shown AS
    SELECT exposure_id, user_id, request_id, exposed_at AS time_ms, article_id, exclusive, experiment, arm, phase,
        triggered, reader_signals, source, query_slot, list_age_ms::BIGINT AS list_age_ms, model, model_version,
        prompt_version
    FROM exposures ANTI JOIN repeated USING (exposure_id)
    UNION ALL
    SELECT exposure_id, any_value(user_id), any_value(request_id), min(exposed_at), any_value(article_id),
        any_value(exclusive), any_value(experiment), any_value(arm), any_value(phase), any_value(triggered),
        any_value(reader_signals), any_value(source), any_value(query_slot), any_value(list_age_ms)::BIGINT,
        any_value(model), any_value(model_version), any_value(prompt_version)
    FROM exposures SEMI JOIN repeated USING (exposure_id) GROUP BY exposure_id;
CREATE TEMP TABLE done AS
    SELECT outcome_id, any_value(user_id) AS user_id, any_value(request_id) AS request_id, min(occurred_at) AS time_ms,
        any_value(article_id) AS article_id, any_value(kind) AS kind, any_value(value) AS value,
        min(arrived_at) AS arrived_at
    FROM outcomes GROUP BY outcome_id;
CREATE TEMP TABLE answered AS
    SELECT request_id, min(time_ms) AS time_ms, list(article_id) FILTER (WHERE exclusive) AS exclusive
    FROM shown GROUP BY request_id;
CREATE TEMP TABLE happened AS
    SELECT user_id, time_ms, 'impression' AS kind, 1.0 AS value, article_id, exclusive
        FROM shown WHERE article_id IS NOT NULL
    UNION ALL
    SELECT user_id, min(time_ms), 'request', 1.0, NULL, false FROM shown GROUP BY user_id, request_id
    UNION ALL
    SELECT done.user_id, done.time_ms, kind, value, article_id,
        coalesce(list_contains(answered.exclusive, article_id), false)
        FROM done LEFT JOIN answered USING (request_id)
        WHERE answered.time_ms IS NULL OR done.time_ms >= answered.time_ms;
"""

_UNITS: Final = """
CREATE TEMP TABLE units AS
    SELECT user_id, phase, min(time_ms) AS first_at, count(DISTINCT arm) AS arms,
        arg_min(arm, (time_ms, exposure_id)) AS arm, arg_min(reader_signals, (time_ms, exposure_id)) AS reader_signals,
        bool_or(triggered) AS triggered
    FROM shown WHERE experiment = $experiment AND ($everyone OR triggered) GROUP BY user_id, phase;
"""


class FoldCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that a bucket held, and those that did not count. Addable."""

    exposures: int = 0
    repeated_exposures: int = 0
    outcomes: int = 0
    repeated_outcomes: int = 0
    unmatched_outcomes: int = 0  # they name a request that the log does not hold; counted like the others
    outcomes_before_exposure: int = 0  # a clock is wrong: left out, and in the quarantine

    def __add__(self, other: "FoldCounts") -> "FoldCounts":
        return FoldCounts(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


class Folded(msgspec.Struct, frozen=True, eq=False):
    """`users`: one row for each user and phase, sorted: user_id, phase, arm, arms (how many the user was seen in),
    first_at, day (since the experiment's start), cold, triggered, bot, mature, and for metric number i the columns
    numerator_i, denominator_i, pre_numerator_i, pre_denominator_i."""

    users: pa.Table
    counts: FoldCounts
    recall: RecallPath
    delivered: Delivered


def fold_users(exposures: pa.Table, outcomes: pa.Table, analysis: Analysis, *, watermark_ms: int) -> Folded:
    """`exposures` and `outcomes` hold every row of each user in them (columns as in schemas/exposure.py)."""
    with duckdb.connect(":memory:", config={"threads": 1}) as session:
        session.register("exposures", exposures)
        session.register("outcomes", with_arrival(outcomes))
        session.execute(_HAPPENED)
        session.execute(_UNITS, {"experiment": analysis.experiment.name, "everyone": not analysis.only_triggered})
        users = session.sql(_fold_statement(analysis, watermark_ms)).to_arrow_table()
        session.register("users", users)
        recall = _recall(session, analysis, watermark_ms)
        return Folded(users, _counts(session), recall, _delivered(session, analysis))


def _fold_statement(analysis: Analysis, watermark_ms: int) -> str:
    start_ms = int(analysis.experiment.phases[0].starts_at.timestamp() * 1000)
    window_ms = round(analysis.window_days * DAY_MS)
    columns = ",\n        ".join(
        f"({expression})::DOUBLE AS {name}_{number}"
        for number, metric in enumerate(analysis.metrics)
        for name, expression in _four(metric.numerator, metric.denominator, analysis)
    )
    return f"""
    SELECT user_id, phase, any_value(arm) AS arm, any_value(arms)::INTEGER AS arms, first_at,
        ((first_at - {start_ms}) // {DAY_MS})::INTEGER AS day,
        any_value(reader_signals) <= {analysis.cold_signals} AS cold, any_value(triggered) AS triggered,
        count(*) FILTER (WHERE kind = 'request' AND {_before(analysis)}) > {analysis.bot_requests} AS bot,
        first_at + {window_ms} <= {watermark_ms} AS mature,
        {columns}
    FROM units LEFT JOIN happened USING (user_id) GROUP BY user_id, phase, first_at ORDER BY user_id, phase
    """


def _four(numerator: Count, denominator: Count | None, analysis: Analysis) -> list[tuple[str, str]]:
    window_ms = round(analysis.window_days * DAY_MS)

    def during(count: Count | None) -> str:
        after_ms = round(count.after_days * DAY_MS) if count else 0
        return _expression(count, f"time_ms BETWEEN first_at + {after_ms} AND first_at + {window_ms}")

    def before(count: Count | None) -> str:
        return _expression(count, _before(analysis))

    return [
        ("numerator", during(numerator)),
        ("denominator", during(denominator)),
        ("pre_numerator", before(numerator)),
        ("pre_denominator", before(denominator)),
    ]


def _recall(session: "duckdb.DuckDBPyConnection", analysis: Analysis, watermark_ms: int) -> RecallPath:
    window_ms = round(analysis.window_days * DAY_MS)
    ages = analysis.list_age_hours
    places = count_places(session, experiment=analysis.experiment.name, window_ms=window_ms, list_age_hours=ages)
    return RecallPath(places, _ages(session, analysis, watermark_ms))


def _delivered(session: "duckdb.DuckDBPyConnection", analysis: Analysis) -> Delivered:
    window_ms, late_ms = round(analysis.window_days * DAY_MS), round(analysis.trust.late_hours * _HOUR_MS)
    return trace_outcomes(session, window_ms=window_ms, late_ms=late_ms)


def _ages(session: "duckdb.DuckDBPyConnection", analysis: Analysis, watermark_ms: int) -> dict[str, Moments]:
    """The primary metric of early readers on each day since their first exposure; caps do not apply to single days."""
    starts_at = analysis.starts_at or analysis.experiment.phases[0].starts_at
    days = cohort_ages(round(starts_at.timestamp() * 1000), watermark_ms, DAY_MS)
    metric = follows(analysis)
    if metric is None or days == 0:
        return {}
    followed = f"first_at <= {watermark_ms - days * DAY_MS} AND arms = 1 AND NOT bot"
    readers = session.sql(f"SELECT arm FROM users WHERE {followed} ORDER BY user_id, phase").fetchnumpy()["arm"]
    above, below = (_expression(count, "true") for count in (metric.numerator, metric.denominator))
    found = session.sql(f"""
        WITH followed AS (
            SELECT user_id, first_at, row_number() OVER (ORDER BY user_id, phase) - 1 AS number
            FROM users WHERE {followed}
        )
        SELECT number, (time_ms - first_at) // {DAY_MS} AS age, ({above})::DOUBLE AS above, ({below})::DOUBLE AS below
        FROM followed JOIN happened USING (user_id)
        WHERE time_ms >= first_at AND time_ms < first_at + {days * DAY_MS} GROUP BY number, age
    """).fetchnumpy()
    rows = np.zeros((len(readers), days, 2))
    if metric.denominator is None:
        rows[:, :, 1] = 1
    rows[found["number"], found["age"], 0] = found["above"]
    rows[found["number"], found["age"], 1] = found["below"]
    return age_moments(rows, np.asarray(readers, dtype=object))


def _before(analysis: Analysis) -> str:
    return f"time_ms >= first_at - {round(analysis.history_days * DAY_MS)} AND time_ms < first_at"


def _expression(count: Count | None, period: str) -> str:
    if count is None:
        return "1"
    exclusive = " AND exclusive" if count.exclusive else ""
    return _AGGREGATES[count.aggregate].format(holds=f"kind = '{count.of}'{exclusive} AND {period}", day=DAY_MS)


def _counts(session: "duckdb.DuckDBPyConnection") -> FoldCounts:
    def number(query: str) -> int:
        row = session.execute(f"SELECT count(*) FROM {query}").fetchone()
        return int(row[0]) if row else 0

    exposures, outcomes = number("exposures"), number("outcomes")
    return FoldCounts(
        exposures=exposures,
        repeated_exposures=exposures - number("shown"),
        outcomes=outcomes,
        repeated_outcomes=outcomes - number("done"),
        unmatched_outcomes=number("done ANTI JOIN answered USING (request_id) WHERE request_id IS NOT NULL"),
        outcomes_before_exposure=number("done JOIN answered USING (request_id) WHERE done.time_ms < answered.time_ms"),
    )
