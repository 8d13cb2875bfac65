import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline.training.cleaner_scores import BOTH, RULES, best_threshold, dropped_by_rules, score_cleaners
from offline.training.labels import Label

ROWS = [
    Label("facebook login", "drop", user_id="a"),
    Label("weather boston", "drop", user_id="a"),
    Label("brisket rub", "keep", user_id="b"),
    Label("Trail map", "keep", user_id="b"),
]
PROBABILITIES = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.99, 1.0]), st.booleans()), min_size=1)


def test_the_rules_are_the_streams_own() -> None:
    rows = [*ROWS, Label("Bonjour tout le monde", "keep"), Label("привет мир", "keep"), Label("a@b.example", "drop")]
    assert dropped_by_rules(rows, ("en",)).tolist() == [True, False, False, False, False, True, True]


def test_shares_by_hand() -> None:
    rules, both = np.array([True, False, False, False]), np.array([True, True, False, True])
    scores = {
        (row.system, row.texts): row
        for row in score_cleaners(ROWS, {RULES: rules, BOTH: both}, {"FACEBOOK login", "trail map"}, seed=1)
    }
    alone, together = scores[RULES, "all"], scores[BOTH, "all"]
    assert (alone.precision.value, alone.recall.value, alone.wrongly_dropped) == (1.0, 0.5, 0.0)
    assert together.precision.value == pytest.approx(2 / 3)
    assert (together.recall.value, together.wrongly_dropped) == (1.0, 0.5)
    unseen = scores[BOTH, "unseen"]  # weather boston and brisket rub
    assert (unseen.rows, unseen.to_drop) == (2, 1)
    assert (unseen.precision.value, unseen.wrongly_dropped) == (1.0, 0.0)
    assert scores[RULES, "unseen"].precision.value is None  # it drops nothing there


def test_intervals_resample_readers_and_repeat_with_their_seed() -> None:
    rows = [Label("weather", "drop", user_id=f"u{n}") for n in range(40)]
    dropped = {"x": np.arange(40) % 2 == 0}
    (first, *_), (again, *_) = (score_cleaners(rows, dropped, (), seed=3) for _ in range(2))
    assert first == again
    assert first.recall.value == 0.5
    assert first.recall.low is not None
    assert first.recall.high is not None
    assert 0.3 < first.recall.low < 0.5 < first.recall.high < 0.7


@given(PROBABILITIES, st.floats(0, 1))
def test_the_threshold_keeps_its_promise_and_no_lower_one_would(rows: list[tuple[float, bool]], most: float) -> None:
    noise, wanted = np.array([share for share, _ in rows]), np.array([flag for _, flag in rows])
    threshold, kept = best_threshold(noise, wanted, most), noise[~wanted]

    def wrong(limit: float) -> float:
        return float((kept >= limit).mean()) if kept.size else 0.0

    if threshold < 1.0:
        assert wrong(threshold) <= most
    lower = noise[noise < threshold]
    if lower.size:
        assert wrong(float(lower.max())) > most
