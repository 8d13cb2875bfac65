"""How the log was delivered, by arm: outcomes that came late, lost their exposure or their click, or are misdated.

A figure that one arm loses more of than the other is an effect of the log and not of the path. Sums over readers, so
that the test has the reader as its unit, as every other test here.
"""

from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from offline.experiments.estimates import Estimate, plain
from offline.experiments.log_columns import ARROW_TYPES, Column
from offline.experiments.moments import Moments, NotEnoughData

ARRIVAL: Final = "arrived_at"  # when an outcome reached the log; a column that not every log has

# The columns of one reader's sums: of what (even) how many (odd).
_SUMS: Final = {
    "timed": "count(arrived_at)",
    "late": "count(*) FILTER (WHERE arrived_at - done_ms > {late_ms})",
    "dwells": "count(*) FILTER (WHERE matched AND kind = 'dwell')",
    "clickless": "count(*) FILTER (WHERE matched AND kind = 'dwell' AND NOT clicked)",
    "named": "count(*) FILTER (WHERE named)",
    "unmatched": "count(*) FILTER (WHERE named AND NOT matched)",
    "matched": "count(*) FILTER (WHERE matched)",
    "early": "count(*) FILTER (WHERE early)",
}
COLUMNS: Final = tuple(_SUMS)

# Of each outcome what became of its exposure and its click; its time is its exposure's where that is known.
_TRACED: Final = """
CREATE TEMP TABLE traced AS
    WITH clicks AS (SELECT DISTINCT request_id, article_id, true AS clicked FROM done WHERE kind = 'click')
    SELECT outcome_id, done.user_id AS user_id, kind, arrived_at, done.time_ms AS done_ms,
        coalesce(answered.time_ms, done.time_ms) AS time_ms, done.request_id IS NOT NULL AS named,
        answered.time_ms IS NOT NULL AS matched, coalesce(done.time_ms < answered.time_ms, false) AS early,
        coalesce(clicked, false) AS clicked
    FROM done LEFT JOIN answered USING (request_id) LEFT JOIN clicks USING (request_id, article_id);
"""


class Delivered(msgspec.Struct, frozen=True, eq=False):
    """What a bucket's outcomes tell. Addable but for `early`, which goes to the quarantine."""

    arms: dict[str, Moments]  # of COLUMNS, over readers
    early: pa.Table  # outcomes dated before their exposure, columns as in schemas/exposure.py


def arrival_column(source: str) -> Column:
    """Null in a log that does not have it."""
    return Column(name=ARRIVAL, type="time", source=source, required=False, nullable=True)


def with_arrival(outcomes: pa.Table) -> pa.Table:
    """`outcomes`, with a null time of arrival when there is none."""
    if ARRIVAL in outcomes.column_names:
        return outcomes
    return outcomes.append_column(ARRIVAL, pa.nulls(outcomes.num_rows, ARROW_TYPES["time"]))


def trace_outcomes(session: Any, *, window_ms: int, late_ms: int) -> Delivered:
    """From the tables `outcomes`, `done`, `answered` and `users` of the fold: outcomes in the windows of readers who
    are in one arm and no bots."""
    session.execute(_TRACED)
    sums = ", ".join(f"{sql.format(late_ms=late_ms)}::DOUBLE AS {name}" for name, sql in _SUMS.items())
    found = session.sql(f"""
        SELECT arm, {sums} FROM users JOIN traced USING (user_id)
        WHERE arms = 1 AND NOT bot AND time_ms BETWEEN first_at AND first_at + {window_ms}
        GROUP BY user_id, phase, arm ORDER BY user_id, phase
    """).fetchnumpy()
    rows, arms = np.column_stack([found[name] for name in COLUMNS]), np.asarray(found["arm"], dtype=object)
    early = session.sql("""
        SELECT * FROM outcomes SEMI JOIN (SELECT outcome_id FROM traced WHERE early) USING (outcome_id)
        ORDER BY outcome_id, occurred_at
    """).to_arrow_table()
    return Delivered({str(arm): Moments.of(rows[arms == arm]) for arm in sorted(set(arms.tolist()))}, early)


def share(arm: Moments | None, part: str, whole: str) -> Estimate:
    """Total by total over readers. Raises NotEnoughData where there is no such outcome."""
    if arm is None or not arm.count:
        raise NotEnoughData("no outcomes")
    at = [COLUMNS.index(part), COLUMNS.index(whole)] * 2
    return plain(Moments(arm.count, arm.mean[at], arm.products[np.ix_(at, at)]), ratio=True)
