"""Clicks by what brought the article, and the effect by age: as counted by hand, and right about planted worlds."""

import itertools
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from offline.experiments.comparison import Interval
from offline.experiments.counting import DAY_MS
from offline.experiments.definition import Analysis, Count, Metric
from offline.experiments.moments import NotEnoughData
from offline.experiments.novelty import Novelty, age_moments, cohort_ages, novelty
from offline.experiments.places import PlaceKey, PlaceSums, list_ages, ratio
from offline.experiments.recall_path import RecallPath, place_rows
from schemas.exposure import Exposure, Outcome
from tests.offline.experiments.folding import fold_users
from tests.offline.experiments.log_rows import ANALYSIS, START_MS, random_log, table

WATERMARK = START_MS + 4 * DAY_MS
ARMS = ("control", "treatment")
METRIC = Metric(name="ctr", role="primary", numerator=Count(of="click"), denominator=Count(of="impression"))


def with_paths(rows: Sequence[Exposure]) -> list[Exposure]:
    ages = (None, 60_000, 4 * 3_600_000, 100 * 3_600_000)
    return [
        msgspec.structs.replace(
            row,
            source=("student", "popular")[n % 2],
            query_slot=(None, 0, 1)[n % 3],
            list_age_ms=ages[n % 4],
            model="m" if n % 3 else "",
            model_version="2" if n % 3 else "",
        )
        for n, row in enumerate(rows)
    ]


def recall(exposures: Sequence[Exposure], outcomes: Sequence[Outcome], analysis: Analysis = ANALYSIS) -> RecallPath:
    return fold_users(table(exposures, Exposure), table(outcomes, Outcome), analysis, watermark_ms=WATERMARK).recall


def naive(exposures: Sequence[Exposure], outcomes: Sequence[Outcome]) -> dict[tuple[str, str, str], list[int]]:
    """Shown, clicked, exclusively clicked, by arm and group."""
    found: dict[tuple[str, str, str], list[int]] = {}
    inside = [row for row in exposures if row.experiment == "path"]
    for user in {row.user_id for row in inside}:
        own = [row for row in inside if row.user_id == user]
        first = min(row.exposed_at for row in own)
        end = first + 2 * DAY_MS
        if len({row.arm for row in own}) > 1 or end > WATERMARK:
            continue
        for row in own:
            if row.article_id is None or row.exposed_at > end:
                continue
            clicked = any(
                o.kind == "click"
                and (o.request_id, o.article_id) == (row.request_id, row.article_id)
                and row.exposed_at <= o.occurred_at <= end
                for o in outcomes
            )
            slot = "none" if row.query_slot is None else str(row.query_slot)
            age = {None: "none", 60_000: "under 1 h", 4 * 3_600_000: "1 to 6 h"}.get(row.list_age_ms, "over 3 days")
            groups = {
                "all": "all",
                "source": row.source,
                "query slot": slot,
                "list age": age,
                "model": "m 2" if row.model else "none",
                "prompt": "none",
            }
            for dimension, value in groups.items():
                counts = found.setdefault((row.arm, dimension, value), [0, 0, 0])
                for n, one in enumerate((1, clicked, clicked and row.exclusive)):
                    counts[n] += one
    return found


@pytest.mark.parametrize("seed", range(4))
def test_the_same_as_counting_by_hand(seed: int) -> None:
    exposures, outcomes = random_log(seed, users=60)
    exposures = with_paths(exposures)
    found = recall(exposures, outcomes).places
    assert {(k.arm, k.dimension, k.value): list(v.totals) for k, v in found.items()} == naive(exposures, outcomes)
    assert any(sums.totals[1] for sums in found.values())


@pytest.mark.parametrize(
    ("hours", "names"),
    [
        ((1, 6, 24, 72), ["under 1 h", "1 to 6 h", "6 to 24 h", "1 to 3 days", "over 3 days"]),
        ((0.5, 36, 48), ["under 0.5 h", "0.5 to 36 h", "36 h to 2 days", "over 2 days"]),
        ((24, 48), ["under 1 day", "1 to 2 days", "over 2 days"]),
        ((), ["any age"]),
    ],
)
def test_ages_of_lists_are_named_by_their_bounds(hours: Sequence[float], names: list[str]) -> None:
    assert list_ages(hours) == names


def test_the_bounds_of_ages_are_the_analysis() -> None:
    exposures, outcomes = random_log(6, users=60)
    exposures = with_paths(exposures)
    halves = msgspec.structs.replace(ANALYSIS, list_age_hours=(4.0, 100.0))
    usual, other = recall(exposures, outcomes), recall(exposures, outcomes, halves)
    rows = [row for row in place_rows(other, list_age_hours=halves.list_age_hours) if row.dimension == "list age"]
    ages = {arm: [row.value for row in rows if row.arm == arm] for arm in ARMS}
    assert all(ages[arm] == ["under 4 h", "4 to 100 h", "over 100 h", "none"] for arm in ARMS)
    shown = {key.value: sums.totals[0] for key, sums in other.places.items() if key.arm == "control"}
    before = {key.value: sums.totals[0] for key, sums in usual.places.items() if key.arm == "control"}
    assert shown["under 4 h"] == before["under 1 h"]  # a bound itself belongs to the older
    assert shown["4 to 100 h"] == before["1 to 6 h"]
    assert shown["over 100 h"] == before["over 3 days"]


def test_buckets_of_readers_add_up_exactly() -> None:
    exposures, outcomes = random_log(5, users=60)
    exposures = with_paths(exposures)
    total = RecallPath()
    for bucket in range(3):
        own = {f"u{n}" for n in range(60) if n % 3 == bucket}
        total = total + recall([e for e in exposures if e.user_id in own], [o for o in outcomes if o.user_id in own])
    whole = recall(exposures, outcomes)
    assert total.places == whole.places
    assert set(total.ages) == set(whole.ages)
    for arm, moments in whole.ages.items():
        assert total.ages[arm].count == moments.count
        np.testing.assert_allclose(total.ages[arm].mean, moments.mean)
        np.testing.assert_allclose(total.ages[arm].products, moments.products, atol=1e-9)


def sums_of(rows: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> PlaceSums:
    pairs = itertools.combinations_with_replacement(range(3), 2)
    products = tuple(int(rows[:, a] @ rows[:, b]) for a, b in pairs)
    return PlaceSums(len(rows), tuple(int(n) for n in rows.sum(axis=0)), products)  # type: ignore[arg-type]


def test_an_interval_of_readers_covers_where_one_of_places_would_not() -> None:
    """Readers differ in taste, so that 20 places of one reader are worth fewer than 20."""
    drawn = np.random.default_rng(1)
    covered = narrow = 0
    for _ in range(400):
        clicked = drawn.binomial(20, drawn.beta(1, 4, 200))
        rows = np.column_stack([np.full(200, 20), clicked, drawn.binomial(clicked, 0.5)])
        found = ratio(sums_of(rows), "clicked", "shown")
        assert found.interval is not None
        covered += found.interval.holds(0.2)
        reach = 1.96 * np.sqrt(found.value * (1 - found.value) / 4_000)
        narrow += Interval(found.value - reach, found.value + reach).holds(0.2)
    assert covered >= 366  # 95 % of 400 is 380, with an error of 4.4
    assert narrow < 330


def test_nothing_clicked_is_not_enough_data_and_few_readers_have_no_interval() -> None:
    few = PlaceSums(5, (40, 0, 0), (320, 0, 0, 0, 0, 0))
    with pytest.raises(NotEnoughData, match="nothing was clicked"):
        ratio(few, "exclusive", "clicked")
    assert ratio(few, "clicked", "shown").interval is None
    (row,) = place_rows(RecallPath({PlaceKey("treatment", "all", "all"): few}))
    assert row.exclusive_recall is None
    assert row.click_rate is not None


def aged(seed: int, effects: Sequence[float], readers: int = 1_000) -> Novelty:
    """Each reader's taste makes that reader's days alike."""
    drawn = np.random.default_rng(seed)
    arms = np.array(ARMS * (readers // 2), dtype=object)
    gain = np.where((arms == "treatment")[:, None], 1 + np.asarray(effects), 1.0)
    taste = drawn.gamma(2, 0.05, readers)[:, None]
    shown = drawn.poisson(10, (readers, len(effects))) + 1
    rows = np.stack([drawn.poisson(taste * shown * gain), shown], axis=2).astype(float)
    return novelty(age_moments(rows, arms), METRIC, ("control", "treatment"))


def test_an_effect_that_wears_off_has_a_falling_slope() -> None:
    found = aged(1, np.linspace(1.0, 0.0, 7).tolist(), readers=4_000)
    assert found.slope_p_value is not None
    assert found.slope_interval is not None
    assert found.slope_p_value < 0.001
    assert found.slope_interval.high < 0
    assert found.slope_interval.holds(-0.1 / 6)  # the base rate of 0.1, lost over six steps


def test_a_steady_effect_has_no_slope_in_19_of_20_worlds() -> None:
    p_values = [found.slope_p_value for seed in range(200) if (found := aged(seed, [0.3] * 7, readers=400))]
    wrong = sum(p is not None and p < 0.05 for p in p_values)
    assert 2 <= wrong <= 20  # 10 expected, with an error of 3.1


def test_too_few_days_or_readers_are_said() -> None:
    assert "fewer than 3 days" in aged(1, [0.1, 0.1]).missing
    assert "fewer than 50 readers" in aged(1, [0.1] * 5, readers=60).missing
    assert "fewer than 50 readers" in novelty({}, METRIC, ("control", "treatment")).missing


def test_half_of_the_experiment_is_followed_and_at_most_two_weeks() -> None:
    assert [cohort_ages(0, days * DAY_MS, DAY_MS) for days in (0, 1, 9, 14, 90)] == [0, 0, 4, 7, 14]
    assert cohort_ages(DAY_MS, 0, DAY_MS) == 0
