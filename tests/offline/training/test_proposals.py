import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from offline.training.news_index import Vectors
from offline.training.proposals import LEAST_GAIN, Depths, brought, fused_list, votes_of, worth_of
from schemas.queries import MAX_QUERIES

ARTICLES = 40
NARROW = Depths(places=(10, 20))

WANTED = arrays(np.float64, ARTICLES, elements=st.floats(0.0, 1.0))
COSINES = arrays(np.float32, st.tuples(st.integers(1, 6), st.just(ARTICLES)), elements=st.floats(-1, 1, width=32))


def test_votes_are_reciprocal_ranks_of_the_nearest() -> None:
    cosines = np.linspace(1, -1, ARTICLES, dtype=np.float32)[None, ::-1]  # the last article is the nearest
    votes = votes_of(cosines, 30)[0]
    assert votes[-1] == np.float32(1 / 61)
    assert votes[-30] == np.float32(1 / 90)
    assert not votes[:-30].any()
    assert np.count_nonzero(votes_of(cosines, 7)) == 7


def test_brought_is_a_share_of_the_most_that_the_places_hold() -> None:
    wanted = np.array([0.4, 0.3, 0.2, 0.1])
    assert brought(np.array([0.0, 0.5, 0.6, 0.0]), wanted, 2) == (0.3 + 0.2) / (0.4 + 0.3)
    assert brought(np.array([0.0, 0.0, 0.0, 0.6]), wanted, 2) == 0.1 / 0.7  # a place without votes brings nothing
    assert brought(np.zeros(4), np.zeros(4), 2) == 0.0


def test_a_list_is_worth_the_mean_of_both_depths() -> None:
    wanted, votes = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.0, 0.5, 0.6, 0.4])
    assert worth_of(votes, wanted, Depths(places=(2, 3))) == ((0.3 + 0.2) / 0.7 + (0.3 + 0.2 + 0.1) / 0.9) / 2


def test_depths_go_as_far_into_more_news() -> None:
    assert Depths(hits=30).in_more_news(2.5) == Depths(hits=75, places=(25, 125))
    assert Depths(hits=30).in_more_news(0.01) == Depths(hits=1, places=(1, 1))


@given(COSINES, WANTED)
def test_a_fused_list_is_worth_what_its_best_query_is_or_more(cosines: Vectors, wanted: NDArray[np.float64]) -> None:
    votes = votes_of(cosines, 30) * (wanted > 0)
    chosen = fused_list(votes, wanted, NARROW)
    assert len(chosen) <= MAX_QUERIES
    assert len(set(chosen)) == len(chosen)
    alone = worth_of(votes, wanted, NARROW)
    together = worth_of(votes[chosen].sum(axis=0), wanted, NARROW) if chosen else 0.0
    assert together >= alone.max() - 1e-9
    if len(chosen) > 1:
        assert together > alone[chosen[0]] * (1 + LEAST_GAIN) - 1e-9


def three_apart() -> Vectors:
    """Three queries, each of which finds thirty articles of its own."""
    votes = np.zeros((3, 90), np.float32)
    votes[0, :30] = votes[1, 30:60] = votes[2, 60:] = 1 / np.arange(61, 91)
    return votes


def test_a_query_that_would_push_out_what_is_wanted_is_left_out() -> None:
    """The second finds 30 other articles; merged, half of the places would go to it."""
    wanted = np.zeros(90)
    wanted[:20] = 1.0
    assert fused_list(three_apart(), wanted, NARROW) == [0]
    wanted[60:80] = 1.5
    assert fused_list(three_apart(), wanted, NARROW) == [2]


def test_two_interests_take_two_queries() -> None:
    wanted = np.zeros(90)
    wanted[:5] = wanted[60:65] = 1.0
    assert fused_list(three_apart(), wanted, NARROW) == [0, 2]


def test_the_second_depth_asks_for_more_interests_than_the_first() -> None:
    """Two interests fill ten places as one does; among fifty there is room for both."""
    wanted = np.zeros(90)
    wanted[:30] = wanted[60:90] = 1.0
    assert fused_list(three_apart(), wanted, Depths(places=(10, 10))) == [0]
    assert fused_list(three_apart(), wanted, Depths(places=(10, 50))) == [0, 2]


def test_what_nobody_expects_counts_for_no_place() -> None:
    """It was clicked before, and the API leaves it out: the places go to what comes next."""
    wanted = np.zeros(90)
    wanted[25:30] = 1.0
    assert fused_list(three_apart(), wanted, Depths(places=(5, 5))) == [0]


def test_without_candidates_there_is_no_list() -> None:
    assert fused_list(np.zeros((0, 3), np.float32), np.ones(3), NARROW) == []
