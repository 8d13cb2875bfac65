"""The rows that off-policy estimates are made of: one shown place each, its reward, and what other policies would do.

Pure. The model of rewards is a table of means over (place, cold reader, as ranked), fitted on the readers of all other
folds, so that no reader's own rewards predict them (cross-fitting; Chernozhukov et al. 2018). It knows of an article
only whether the ranking had it there, which is all that a log without the unshown candidates can tell.
"""

import hashlib
from typing import Any, Final, Self

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from offline.experiments.counting import DAY_MS
from offline.experiments.definition import Analysis, OffPolicy, Policy
from offline.experiments.moments import Floats
from offline.experiments.offpolicy import Log
from offline.experiments.quarantine import TARGET

FOLDS: Final = 5
PLACES: Final = 50  # deeper ones share a cell
_CELLS: Final = PLACES * 2 * 2
_ROUNDING: Final = 1e-9

# One row for each shown place of a wanted arm whose window has passed; repeated lines once; clicks of the same request.
_ROWS: Final = """
WITH shown AS (
    SELECT exposure_id, {columns} FROM exposures
    WHERE inside AND list_contains($arms, arm) AND article_id IS NOT NULL
    GROUP BY exposure_id HAVING min(exposed_at) + $window_ms <= $watermark_ms),
done AS (
    SELECT outcome_id, any_value(request) AS request_id, any_value(article) AS article_id,
        min(occurred_at) AS time_ms, any_value(value) AS value
    FROM outcomes WHERE kind = $kind GROUP BY outcome_id),
earned AS (
    SELECT exposure_id, CASE WHEN $kind = 'click' THEN 1.0 ELSE sum(value) END AS reward
    FROM shown JOIN done USING (request_id, article_id)
    WHERE time_ms BETWEEN exposed_at AND exposed_at + $window_ms GROUP BY exposure_id)
SELECT shown.*, coalesce(reward, 0.0) AS reward FROM shown LEFT JOIN earned USING (exposure_id)
ORDER BY user_id, exposure_id
"""
_TAKEN: Final = ("request_id", "user_id", "arm", "position", "article_id", "propensity", "reader_signals")


class CellSums(msgspec.Struct, frozen=True, eq=False):
    """Rows and rewards of each cell of the reward model, by fold. Addable."""

    rows: Floats  # [FOLDS, cells]
    rewards: Floats  # [FOLDS, cells]

    def __add__(self, other: Self) -> Self:
        return type(self)(self.rows + other.rows, self.rewards + other.rewards)


class Rows(msgspec.Struct, frozen=True, eq=False):
    """The columns of the query as arrays [n]; `user` numbers the readers of this bucket from 0."""

    user: NDArray[np.int64]
    fold: NDArray[np.int64]
    reward: Floats
    propensity: Floats
    place: NDArray[np.int64]
    cold: NDArray[np.bool_]
    as_ranked: NDArray[np.bool_]
    pool: Floats  # how many articles an exploring answer drew from; 1 without exploration
    targets: tuple[Floats, ...]  # of each policy


def wanted_arms(analysis: Analysis, asked: OffPolicy) -> list[str]:
    exploring = [arm.name for arm in analysis.experiment.arms if arm.exploration > 0]
    return list(asked.arms) or exploring or [arm.name for arm in analysis.experiment.arms]


def policy_rows(
    exposures: pa.Table, outcomes: pa.Table, analysis: Analysis, asked: OffPolicy, *, watermark_ms: int
) -> Rows:
    """Coded rows (encoding.py), all of each reader in them."""
    extra = [f"{TARGET}{n}" for n, policy in enumerate(asked.policies) if policy.column is not None]
    columns = ", ".join(
        [*(f"any_value({name}) AS {name}" for name in (*_TAKEN, *extra)), "min(exposed_at) AS exposed_at"]
    )
    with duckdb.connect(":memory:", config={"threads": 1}) as session:
        session.register("exposures", exposures)
        session.register("outcomes", outcomes)
        given = {
            "arms": wanted_arms(analysis, asked),
            "window_ms": round(analysis.window_days * DAY_MS),
            "watermark_ms": watermark_ms,
            "kind": asked.reward,
        }
        table = session.sql(_ROWS.format(columns=columns), params=given).to_arrow_table()
    return _rows(table, analysis, asked)


def cell_sums(rows: Rows) -> CellSums:
    """Of all rows of a bucket."""
    at = rows.fold * _CELLS + cells(rows)
    return CellSums(*(_by_cell(at, weights) for weights in (np.ones(len(at)), rows.reward)))


def _by_cell(at: NDArray[np.int64], weights: Floats) -> Floats:
    sums: Floats = np.bincount(at, weights=weights, minlength=FOLDS * _CELLS).astype(np.float64)
    return sums.reshape(FOLDS, _CELLS)


def cells(rows: Rows, as_ranked: bool | None = None) -> NDArray[np.int64]:
    """The cell of each row; with `as_ranked` that of the other kind of article at the same place."""
    ranked = rows.as_ranked if as_ranked is None else np.full(len(rows.user), as_ranked)
    found: NDArray[np.int64] = (rows.place * 2 + rows.cold) * 2 + ranked
    return found


def reward_model(sums: CellSums) -> Floats:
    """[FOLDS, cells]: for the readers of each fold the cell means of all others; the mean of all where none is."""
    rows, rewards = sums.rows.sum(axis=0) - sums.rows, sums.rewards.sum(axis=0) - sums.rewards
    overall = rewards.sum(axis=1, keepdims=True) / np.maximum(1.0, rows.sum(axis=1, keepdims=True))
    found: Floats = np.where(rows > 0, rewards / np.maximum(1.0, rows), overall)
    return found


def policy_log(rows: Rows, model: Floats, target: Floats) -> Log:
    """What the estimators take. The policy's mean reward weighs both kinds of article by their probabilities."""
    ranked: Floats = model[rows.fold, cells(rows, True)]
    other: Floats = model[rows.fold, cells(rows, False)]
    chance = _chance_of_ranked(rows, target)
    return Log(
        user=rows.user.astype(np.float64),
        reward=rows.reward,
        propensity=rows.propensity,
        target=target,
        predicted=model[rows.fold, cells(rows)],
        predicted_target=chance * ranked + (1 - chance) * other,
    )


def _chance_of_ranked(rows: Rows, target: Floats) -> Floats:
    """With which the policy shows the ranking's article here: read off the row when that was shown; otherwise what the
    probability of the article that was shown leaves for it, all unranked articles being alike."""
    left = 1 - (rows.pool - 1) * target
    found: Floats = np.clip(np.where(rows.as_ranked, target, left), 0.0, 1.0)
    return found


def _rows(table: pa.Table, analysis: Analysis, asked: OffPolicy) -> Rows:
    propensity = _numbers(table, "propensity")
    shares = {arm.name: arm.exploration for arm in analysis.experiment.arms}
    share = np.array([shares.get(arm, 0.0) for arm in table["arm"].to_pylist()], dtype=np.float64)
    as_ranked = propensity > 1 - share + _ROUNDING
    as_ranked |= share == 0
    pool = np.where(share > 0, share / np.maximum(_ROUNDING, propensity - np.where(as_ranked, 1 - share, 0)), 1.0)
    users, user = np.unique(np.array(table["user_id"].to_pylist(), dtype=object), return_inverse=True)
    folds = np.array([fold_of(name) for name in users], dtype=np.int64)
    return Rows(
        user=user.astype(np.int64),
        fold=folds[user] if len(folds) else np.zeros(0, dtype=np.int64),
        reward=_numbers(table, "reward"),
        propensity=propensity,
        place=np.minimum(np.maximum(_numbers(table, "position"), 1), PLACES).astype(np.int64) - 1,
        cold=_numbers(table, "reader_signals") <= analysis.cold_signals,
        as_ranked=as_ranked,
        pool=pool,
        targets=tuple(_target(policy, n, table, as_ranked, pool) for n, policy in enumerate(asked.policies)),
    )


def fold_of(user_id: str) -> int:
    """By a hash of its own, so that folds and arms are independent."""
    return hashlib.sha256(f"fold\0{user_id}".encode()).digest()[0] % FOLDS


def _target(policy: Policy, number: int, table: pa.Table, as_ranked: Any, pool: Floats) -> Floats:
    if policy.exploration is None:
        return _numbers(table, f"{TARGET}{number}")
    found: Floats = (1 - policy.exploration) * as_ranked + policy.exploration / pool
    return found


def _numbers(table: pa.Table, name: str) -> Floats:
    found: Floats = table[name].to_numpy().astype(np.float64)
    return found
