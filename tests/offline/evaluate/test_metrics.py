import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline.evaluate.metrics import (
    estimate,
    ndcg_at_k,
    paired_difference,
    recall_at_k,
    reciprocal_rank,
    resampled_means,
)

IDS = st.lists(st.sampled_from("abcdefghij"), unique=True, max_size=10)
SOME_IDS = st.sets(st.sampled_from("abcdefghij"), min_size=1)


@pytest.mark.parametrize(
    ("ranked", "positives", "k", "recall"),
    [
        (["a", "b", "c"], {"b"}, 1, 0.0),
        (["a", "b", "c"], {"b"}, 2, 1.0),
        (["a", "b", "c"], {"a", "c"}, 2, 0.5),
        (["a", "b", "c"], {"a", "b", "c", "d"}, 2, 1.0),  # two places, two found: perfect
        (["a", "b", "c"], {"a", "x", "y", "z"}, 10, 0.25),
        ([], {"a"}, 10, 0.0),
    ],
)
def test_recall_is_found_over_what_could_be_found(
    ranked: list[str], positives: set[str], k: int, recall: float
) -> None:
    assert recall_at_k(ranked, positives, k) == recall


def test_ndcg_by_hand() -> None:
    """Positives at ranks 1 and 3 of 3: (1 + 1/2) / (1 + 1/log2(3))."""
    assert ndcg_at_k(["a", "x", "b"], {"a", "b"}, 3) == pytest.approx(1.5 / (1 + 1 / math.log2(3)))
    assert ndcg_at_k(["x", "a"], {"a"}, 2) == pytest.approx(1 / math.log2(3))
    assert ndcg_at_k(["a", "a"], {"a", "b"}, 2) == pytest.approx(1 / (1 + 1 / math.log2(3)))  # a repeat gains nothing
    assert ndcg_at_k(["a", "b"], {"a", "b", "c"}, 2) == 1.0


def test_reciprocal_rank_by_hand() -> None:
    assert reciprocal_rank(["x", "y", "b", "a"], {"a", "b"}) == pytest.approx(1 / 3)
    assert reciprocal_rank(["x"], {"a"}) == 0.0


@given(ranked=IDS, positives=SOME_IDS, k=st.integers(1, 12))
def test_metrics_are_shares_and_a_perfect_list_scores_one(ranked: list[str], positives: set[str], k: int) -> None:
    for value in (
        recall_at_k(ranked, positives, k),
        ndcg_at_k(ranked, positives, k),
        reciprocal_rank(ranked, positives),
    ):
        assert 0.0 <= value <= 1.0
    perfect = [*sorted(positives), *(set("abcdefghij") - positives)]
    assert recall_at_k(perfect, positives, k) == 1.0
    assert ndcg_at_k(perfect, positives, k) == pytest.approx(1.0)


@given(ranked=IDS, positives=SOME_IDS, k=st.integers(1, 11))
def test_found_never_falls_with_more_places(ranked: list[str], positives: set[str], k: int) -> None:
    def found(places: int) -> float:
        return recall_at_k(ranked, positives, places) * min(places, len(positives))

    assert found(k) <= found(k + 1) + 1e-9


@pytest.mark.parametrize(("positives", "k", "message"), [(set[str](), 3, "no positives"), ({"a"}, 0, "at least one")])
def test_nothing_to_find_is_an_error(positives: set[str], k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recall_at_k(["a"], positives, k)


def test_an_interval_holds_the_mean_and_repeats_with_its_seed() -> None:
    values = [0.0, 0.5, 1.0, 0.25] * 25
    first = estimate(values, seed=3)
    assert first.low < first.mean < first.high
    assert first.mean == 0.4375
    assert first.readers == 100
    assert estimate(values, seed=3) == first
    assert estimate(values, seed=4) != first


def test_the_interval_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(1).normal(size=400)
    row = estimate(values, seed=1, resamples=4_000)
    assert row.high - row.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.08)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    samples = (rng.random(60) < 0.3 for _ in range(200))
    covered = 0
    for number, sample in enumerate(samples):
        row = estimate(sample.astype(float), seed=number, resamples=400)
        covered += row.low <= 0.3 <= row.high
    assert 0.88 <= covered / 200 <= 0.99


def test_equal_values_have_no_interval() -> None:
    row = estimate([0.5] * 10, seed=1)
    assert (row.low, row.mean, row.high) == (0.5, 0.5, 0.5)


def test_a_paired_difference_is_sharper_than_two_intervals() -> None:
    theirs = np.random.default_rng(2).random(200)
    ours = theirs + 0.05
    row = paired_difference(ours.tolist(), theirs.tolist(), seed=1)
    assert row.low == pytest.approx(0.05) == row.high
    assert estimate(ours, seed=1).low < estimate(theirs, seed=1).high


def test_a_paired_difference_needs_pairs() -> None:
    with pytest.raises(ValueError, match="the same readers"):
        paired_difference([1.0], [1.0, 2.0], seed=1)
    with pytest.raises(ValueError, match="at least one reader"):
        estimate([], seed=1)


def test_many_readers_are_resampled_in_parts() -> None:
    values = np.random.default_rng(9).random(12_000)
    row = estimate(values, seed=1, resamples=1_000)  # 12,000,000 values: more than one part
    assert row.low < values.mean() < row.high


def test_means_of_resamples_are_those_of_the_readers_drawn() -> None:
    values = np.random.default_rng(4).random(30)
    places = np.random.default_rng(6).integers(0, 30, (50, 30))
    assert resampled_means(values, seed=6, resamples=50) == pytest.approx(values[places].mean(axis=1))
