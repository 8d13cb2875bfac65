"""Cells of users: the same sums whatever the buckets, and nobody in a metric who must not be."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline.experiments.caps import caps_of, count_values
from offline.experiments.definition import Count, Metric
from offline.experiments.fold import FoldCounts
from offline.experiments.tally import Tally, tally_users

METRICS = (
    Metric(name="clicks", role="primary", numerator=Count(of="click", cap=0.9)),
    Metric(name="median-dwell", numerator=Count(of="dwell", aggregate="sum"), quantile=0.5),
)


def users(seed: int, count: int) -> pa.Table:
    drawn = np.random.default_rng(seed)
    columns: dict[str, Any] = {
        "user_id": [f"u{seed}-{n}" for n in range(count)],
        "phase": drawn.integers(0, 2, count),
        "day": drawn.integers(0, 3, count),
        "arm": drawn.choice(["control", "treatment"], count),
        "arms": drawn.choice([1, 1, 1, 2], count),
        "cold": drawn.random(count) < 0.3,
        "triggered": drawn.random(count) < 0.8,
        "bot": drawn.random(count) < 0.1,
        "mature": drawn.random(count) < 0.9,
    }
    for number in range(2):
        for name in ("numerator", "denominator", "pre_numerator", "pre_denominator"):
            columns[f"{name}_{number}"] = drawn.poisson(5, count).astype(float)
    return pa.table({name: pa.array(values, _TEXTS.get(name)) for name, values in columns.items()})


_TEXTS = {"user_id": pa.string(), "arm": pa.string()}


def tally(table: pa.Table, caps: dict[int, float] | None = None) -> Tally:
    return tally_users(table, METRICS, caps or {}, FoldCounts(exposures=table.num_rows))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(min_value=0, max_value=60), min_size=2, max_size=5))
def test_buckets_add_up_to_the_whole(sizes: list[int]) -> None:
    parts = [users(seed, size) for seed, size in enumerate(sizes)]
    added = Tally({})
    for part in parts:
        added = added + tally(part)
    whole = tally(pa.concat_tables(parts))
    assert added.counts == whole.counts
    assert set(added.cells) == set(whole.cells)
    for key, cell in whole.cells.items():
        found = added.cells[key]
        assert (found.exposed, found.crossed, found.waiting) == (cell.exposed, cell.crossed, cell.waiting)
        assert found.with_bots().moments[0].count == cell.with_bots().moments[0].count
        np.testing.assert_allclose(found.moments[0].mean, cell.moments[0].mean)
        np.testing.assert_allclose(found.moments[0].products, cell.moments[0].products, atol=1e-9)


def test_only_users_of_one_arm_whose_window_has_passed_are_in_a_metric() -> None:
    table = users(1, 500)
    rows = [row for row in table.to_pylist() if row["arm"] == "control"]
    found = tally(table).total(lambda key: key.arm == "control")
    with_bots = [row for row in rows if row["arms"] == 1 and row["mature"]]
    counted = [row for row in with_bots if not row["bot"]]
    assert (found.exposed, found.moments[0].count) == (len(rows), len(counted))
    assert found.with_bots().moments[0].count == len(with_bots) > len(counted)
    assert found.crossed == sum(row["arms"] > 1 for row in rows)
    assert found.waiting == sum(not row["mature"] for row in rows)
    assert found.moments[0].mean[0] == pytest.approx(np.mean([row["numerator_0"] for row in counted]))


def test_a_cap_from_all_arms_cuts_and_is_reported() -> None:
    table = users(2, 2_000)
    found = tally(table, caps_of(count_values(table, METRICS), METRICS)).total(lambda key: True)
    assert found.capped[0] > 0
    assert found.moments[0].mean[0] < tally(table).total(lambda key: True).moments[0].mean[0]


def test_quantiles_come_from_merged_sketches() -> None:
    from offline.experiments.quantiles import QuantileSketch

    found = tally(users(3, 900)).total(lambda key: key.arm == "treatment")
    assert found.sketches[0] is None
    assert abs(QuantileSketch(found.sketches[1]).estimate(0.5).value - 5.0) <= 0.5  # a count: within its step


def test_no_users_give_no_cells() -> None:
    assert tally(users(4, 0)).cells == {}
