import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from offline.training.proposals import (
    PHRASE_WORDS,
    chosen_half,
    covering_list,
    found_share,
    nearest_readers,
    phrases,
    wanted_articles,
)
from schemas.queries import MAX_QUERIES

ARTICLES = [f"a{number}" for number in range(8)]


def test_phrases_begin_and_end_with_content_and_cross_no_punctuation() -> None:
    assert phrases("The storm of the century, coast flooded") == ["storm of the century", "coast flooded"]
    assert phrases("storm") == phrases("of the") == phrases("") == []


@given(st.text(max_size=60))
def test_phrases_are_short_and_stand_in_the_text(text: str) -> None:
    shortest, longest = PHRASE_WORDS
    for phrase in phrases(text):
        assert shortest <= len(phrase.split()) <= longest
        assert all(word in text for word in phrase.split())


@given(st.lists(st.sampled_from(ARTICLES), unique=True))
def test_the_halves_share_nothing_and_lose_nothing(articles: list[str]) -> None:
    ours, apart = chosen_half("u", articles)
    assert sorted(ours + apart) == sorted(articles)
    assert chosen_half("u", articles[::-1]) == (ours[::-1], apart[::-1])


def test_nearest_readers_are_others_by_cosine() -> None:
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]]
    assert nearest_readers(vectors, 1).tolist() == [[1], [0], [3], [2]]
    assert nearest_readers(vectors, 9).shape == (4, 3)
    assert nearest_readers(vectors[:1], 3).shape == (1, 0)


def test_what_is_wanted_weighs_each_reader_once_and_adds_up_to_one() -> None:
    """Own click counts 2; a like reader's single click 1, another's two clicks a half each: of 4."""
    assert wanted_articles(["a"], [["b"], ["b", "c"]], own_weight=2.0) == {"a": 2 / 4, "b": 1.5 / 4, "c": 0.5 / 4}
    assert wanted_articles([], [[]], own_weight=1.0) == {}


FINDS = st.dictionaries(st.sampled_from("pqrstuvw"), st.frozensets(st.sampled_from(ARTICLES)), min_size=1)
WANTED = st.dictionaries(st.sampled_from(ARTICLES), st.floats(0.01, 1.0))


@given(FINDS, WANTED)
def test_a_covering_list_beats_every_single_query(finds: dict[str, frozenset[str]], wanted: dict[str, float]) -> None:
    total = sum(wanted.values())
    wanted = {article: weight / total for article, weight in wanted.items()}
    chosen = covering_list(list(finds), finds, wanted)
    best = max(found_share([query], finds, wanted) for query in finds)
    assert len(chosen) <= MAX_QUERIES
    assert found_share(chosen, finds, wanted) >= best - 0.02  # what is worth less than LEAST_GAIN is not taken


def test_a_query_that_adds_nothing_is_left_out() -> None:
    finds = {"storm coast": {"a0", "a1"}, "coast wind": {"a1"}, "chess": {"a2"}}
    assert covering_list(list(finds), finds, {"a0": 0.4, "a1": 0.4, "a2": 0.2}) == ("storm coast", "chess")
