"""Tables of users, as the fold leaves them, from worlds whose effects are known."""

from typing import Any

import numpy as np
import pyarrow as pa

from offline.experiments.definition import Analysis
from offline.experiments.fold import FoldCounts
from offline.experiments.report import Report, build_report
from offline.experiments.tally import tally_users
from offline.experiments.trust import LogCounts
from tests.offline.experiments.log_rows import ANALYSIS

ARMS = np.array(["control", "treatment"])
_TEXTS = {"user_id": pa.string(), "arm": pa.string()}


def users(
    seed: int,
    count: int = 20_000,
    *,
    lift: float = 0.0,
    cold_lift: float | None = None,
    treated: float = 0.5,
    days: int = 14,
    phase: int = 0,
    base: float = 1.0,
) -> pa.Table:
    """Clicks by impressions, now and before; readers differ in taste, cold ones have no history."""
    drawn = np.random.default_rng(seed)
    treatment = drawn.random(count) < treated
    cold = drawn.random(count) < 0.25
    gain = np.where(treatment, np.where(cold, lift if cold_lift is None else cold_lift, lift), 0.0)
    taste = drawn.gamma(2.0, 0.05 * base, count)
    shown, before = drawn.poisson(10, count) + 1, np.where(cold, 0, drawn.poisson(10, count) + 1)
    clicks, past = drawn.poisson(taste * shown * (1 + gain)), drawn.poisson(taste * before)
    ones = np.ones(count)
    visits = drawn.poisson(3, count)
    columns: dict[str, Any] = {
        "user_id": [f"u{seed}-{n}" for n in range(count)],
        "phase": np.full(count, phase),
        "day": drawn.integers(0, days, count) + phase * days,
        "arm": ARMS[treatment.astype(int)],
        "arms": np.ones(count, dtype=int),
        "cold": cold,
        "triggered": drawn.random(count) < 0.8,
        "bot": np.zeros(count, dtype=bool),
        "mature": np.ones(count, dtype=bool),
    }
    metrics = [
        (clicks, shown, past, before),
        (clicks > 0, ones, past > 0, ones),
        (20.0 * clicks, np.maximum(clicks, 1), 20.0 * past, np.maximum(past, 1)),
        *([(visits, ones, np.zeros(count), ones)] * 3),
    ]
    for number, four in enumerate(metrics):
        for name, values in zip(("numerator", "denominator", "pre_numerator", "pre_denominator"), four, strict=True):
            columns[f"{name}_{number}"] = np.asarray(values, dtype=float)
    return pa.table({name: pa.array(values, _TEXTS.get(name)) for name, values in columns.items()})


def replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def report(table: pa.Table, analysis: Analysis = ANALYSIS, log: LogCounts = LogCounts()) -> Report:  # noqa: B008
    return build_report(tally_users(table, analysis.metrics, {}, FoldCounts()), analysis, log)
