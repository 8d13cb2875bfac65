"""The fold of log rows to users: equal to a naive one row by row, blind to order, repetition and sharding."""

import random
from collections.abc import Sequence

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline.experiments.counting import DAY_MS
from offline.experiments.definition import Count
from offline.experiments.fold import FoldCounts, Folded
from schemas.exposure import Exposure, Outcome
from tests.offline.experiments.folding import fold_users
from tests.offline.experiments.log_rows import ANALYSIS, START_MS, random_log, table

WATERMARK = START_MS + 4 * DAY_MS
seeds = st.integers(min_value=0, max_value=10_000)


def fold(exposures: Sequence[Exposure], outcomes: Sequence[Outcome], only_triggered: bool = False) -> Folded:
    analysis = msgspec.structs.replace(ANALYSIS, only_triggered=only_triggered)
    return fold_users(table(exposures, Exposure), table(outcomes, Outcome), analysis, watermark_ms=WATERMARK)


class Happening(msgspec.Struct, frozen=True):
    at: int
    kind: str
    value: float
    article_id: str | None
    exclusive: bool


def naive_count(happened: Sequence[Happening], count: Count | None, low: int, high: int) -> float:
    if count is None:
        return 1.0
    rows = [h for h in happened if h.kind == count.of and low <= h.at <= high and (h.exclusive or not count.exclusive)]
    return float(
        {
            "count": len(rows),
            "sum": sum(h.value for h in rows),
            "any": bool(rows),
            "days": len({h.at // DAY_MS for h in rows}),
            "articles": len({h.article_id for h in rows} - {None}),
        }[count.aggregate]
    )


def happened_to(user: str, exposures: Sequence[Exposure], outcomes: Sequence[Outcome]) -> list[Happening]:
    answered = {row.request_id: row.exposed_at for row in exposures}
    exclusive = {(row.request_id, row.article_id) for row in exposures if row.exclusive and row.article_id}
    shown = [row for row in exposures if row.user_id == user]
    found = [Happening(r.exposed_at, "impression", 1, r.article_id, r.exclusive) for r in shown if r.article_id]
    found += [Happening(answered[request], "request", 1, None, False) for request in {r.request_id for r in shown}]
    for row in outcomes:
        if row.user_id == user and row.occurred_at >= answered.get(row.request_id or "", 0):
            own = (row.request_id, row.article_id) in exclusive
            found.append(Happening(row.occurred_at, row.kind, row.value, row.article_id, own))
    return found


def naive(exposures: Sequence[Exposure], outcomes: Sequence[Outcome]) -> list[tuple[object, ...]]:
    """Users in the order of their ids: id, arm, arms, first, mature, then four columns for each metric."""
    found: list[tuple[object, ...]] = []
    for user in sorted({row.user_id for row in exposures if row.experiment == "path"}):
        own = [row for row in exposures if row.user_id == user and row.experiment == "path"]
        first = min(own, key=lambda row: (row.exposed_at, row.exposure_id))
        happened = happened_to(user, exposures, outcomes)
        start, end = first.exposed_at, first.exposed_at + 2 * DAY_MS
        row: list[object] = [user, first.arm, len({r.arm for r in own}), start, end <= WATERMARK]
        for metric in ANALYSIS.metrics:
            for count in (metric.numerator, metric.denominator):
                after = round(count.after_days * DAY_MS) if count else 0
                row.append(naive_count(happened, count, start + after, end))
            for count in (metric.numerator, metric.denominator):
                row.append(naive_count(happened, count, start - 5 * DAY_MS, start - 1))
        found.append(tuple(row))
    return found


def rows_of(users: pa.Table) -> list[tuple[object, ...]]:
    numbers = range(len(ANALYSIS.metrics))
    kinds = ("numerator", "denominator", "pre_numerator", "pre_denominator")
    wanted = ["user_id", "arm", "arms", "first_at", "mature", *(f"{kind}_{n}" for n in numbers for kind in kinds)]
    return [tuple(row[name] for name in wanted) for row in users.to_pylist()]


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_the_same_as_counting_by_hand(seed: int) -> None:
    exposures, outcomes = random_log(seed)
    assert rows_of(fold(exposures, outcomes).users) == naive(exposures, outcomes)


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_order_and_repeated_lines_change_nothing(seed: int) -> None:
    exposures, outcomes = random_log(seed)
    before = fold(exposures, outcomes)
    drawn = random.Random(seed)
    again = exposures + drawn.sample(exposures, len(exposures) // 2)
    results = outcomes + drawn.sample(outcomes, len(outcomes) // 2)
    drawn.shuffle(again)
    drawn.shuffle(results)
    after = fold(again, results)
    assert after.users.equals(before.users)
    assert after.counts.repeated_exposures == len(again) - len(exposures)
    assert after.counts.repeated_outcomes == len(results) - len(outcomes)


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_buckets_of_users_add_up(seed: int) -> None:
    exposures, outcomes = random_log(seed)
    parts = []
    for bucket in range(3):
        own = {f"u{n}" for n in range(12) if n % 3 == bucket}
        parts.append(fold([e for e in exposures if e.user_id in own], [o for o in outcomes if o.user_id in own]))
    whole = fold(exposures, outcomes)
    together = pa.concat_tables([part.users for part in parts]).sort_by("user_id")
    assert together.equals(whole.users.combine_chunks()) or together.to_pylist() == whole.users.to_pylist()
    assert parts[0].counts + parts[1].counts + parts[2].counts == whole.counts


def test_a_reader_who_never_clicked_is_a_row_of_zeros() -> None:
    exposures = [row for row in random_log(1)[0] if row.experiment == "path"][:1]
    (row,) = fold(exposures, []).users.to_pylist()
    assert (row["numerator_0"], row["numerator_1"]) == (0.0, 0.0)


def test_only_triggered_readers_when_asked() -> None:
    exposures, outcomes = random_log(2)
    triggered = {row.user_id for row in exposures if row.experiment == "path" and row.triggered}
    assert set(fold(exposures, outcomes, only_triggered=True).users["user_id"].to_pylist()) == triggered


def test_rows_that_do_not_count_are_counted() -> None:
    exposures, outcomes = random_log(3, users=40)
    counts = fold(exposures, outcomes).counts
    answered = {row.request_id: row.exposed_at for row in exposures}
    assert counts == FoldCounts(
        exposures=len(exposures),
        outcomes=len(outcomes),
        unmatched_outcomes=sum(row.request_id == "lost" for row in outcomes),
        outcomes_before_exposure=sum(row.occurred_at < answered.get(row.request_id or "", 0) for row in outcomes),
    )


def test_an_empty_log_gives_no_users() -> None:
    assert fold([], []).users.num_rows == 0


@pytest.mark.parametrize("field", ["phase", "cold", "triggered", "day"])
def test_the_columns_of_strata_are_there(field: str) -> None:
    assert field in fold(*random_log(4)).users.column_names
