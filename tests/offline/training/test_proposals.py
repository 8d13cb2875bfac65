import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from offline.training.news_index import Vectors
from offline.training.proposals import (
    CHOICE_PLACES,
    LEAST_GAIN,
    PHRASE_WORDS,
    brought,
    fused_list,
    phrases,
    votes_of,
)
from schemas.queries import MAX_QUERIES

ARTICLES = 40


def test_phrases_begin_and_end_with_content_and_cross_no_punctuation() -> None:
    assert phrases("The storm of the century, coast flooded") == ["storm of the century", "coast flooded"]
    assert phrases("storm") == phrases("of the") == phrases("") == []


@given(st.text(max_size=60))
def test_phrases_are_short_and_stand_in_the_text(text: str) -> None:
    shortest, longest = PHRASE_WORDS
    for phrase in phrases(text):
        assert shortest <= len(phrase.split()) <= longest
        assert all(word in text for word in phrase.split())


WANTED = arrays(np.float64, ARTICLES, elements=st.floats(0.0, 1.0))
COSINES = arrays(np.float32, st.tuples(st.integers(1, 6), st.just(ARTICLES)), elements=st.floats(-1, 1, width=32))


def test_votes_are_reciprocal_ranks_of_the_nearest_thirty() -> None:
    cosines = np.linspace(1, -1, ARTICLES, dtype=np.float32)[None, ::-1]  # the last article is the nearest
    votes = votes_of(cosines)[0]
    assert votes[-1] == np.float32(1 / 61)
    assert votes[-30] == np.float32(1 / 90)
    assert not votes[:-30].any()


def test_brought_is_a_share_of_the_most_that_the_places_hold() -> None:
    wanted = np.array([0.4, 0.3, 0.2, 0.1])
    assert brought(np.array([0.0, 0.5, 0.6, 0.0]), wanted, 2) == (0.3 + 0.2) / (0.4 + 0.3)
    assert brought(np.array([0.0, 0.0, 0.0, 0.6]), wanted, 2) == 0.1 / 0.7  # a place without votes brings nothing
    assert brought(np.zeros(4), np.zeros(4), 2) == 0.0


@given(COSINES, WANTED)
def test_a_fused_list_brings_what_its_best_query_brings_or_more(cosines: Vectors, wanted: NDArray[np.float64]) -> None:
    votes = votes_of(cosines)
    chosen = fused_list(votes, wanted)
    assert len(chosen) <= MAX_QUERIES
    assert len(set(chosen)) == len(chosen)
    alone = brought(votes, wanted, CHOICE_PLACES)
    together = brought(votes[chosen].sum(axis=0), wanted, CHOICE_PLACES) if chosen else 0.0
    assert together >= alone.max() - 1e-9
    if len(chosen) > 1:
        assert together > alone[chosen[0]] * (1 + LEAST_GAIN) - 1e-9


def test_a_query_that_would_push_out_what_is_wanted_is_left_out() -> None:
    """The second finds 30 other articles; merged, half of the places would go to it."""
    votes = np.zeros((3, 90), np.float32)
    votes[0, :30] = votes[1, 30:60] = votes[2, 60:] = 1 / np.arange(61, 91)
    wanted = np.zeros(90)
    wanted[:20] = 1.0
    assert fused_list(votes, wanted) == [0]
    wanted[60:80] = 1.5
    assert fused_list(votes, wanted) == [2]


def test_two_interests_take_two_queries() -> None:
    votes = np.zeros((3, 90), np.float32)
    votes[0, :30] = votes[1, 30:60] = votes[2, 60:] = 1 / np.arange(61, 91)
    wanted = np.zeros(90)
    wanted[:5] = wanted[60:65] = 1.0
    assert fused_list(votes, wanted) == [0, 2]


def test_without_candidates_there_is_no_list() -> None:
    assert fused_list(np.zeros((0, 3), np.float32), np.ones(3)) == []
