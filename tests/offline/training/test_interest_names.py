from collections.abc import Sequence

import numpy as np
import pytest

from offline.training import interest_names as subject
from offline.training.interest_names import MOST_WORDS, interest_names
from offline.training.news_index import Vectors
from schemas.queries import parse_queries

SUBJECTS = ("lithium plant", "coast storm", "rail strike")
TEXTS = [f"The {subject} of the week number {number}" for subject in SUBJECTS for number in range(8)]
WORDS = sorted({word for subject in SUBJECTS for word in subject.split()})


def embed(texts: Sequence[str]) -> Vectors:
    """Bags of the subjects' words, of unit length."""
    rows = np.array([[text.lower().split().count(word) for word in WORDS] for text in texts], np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6) if len(texts) else rows


@pytest.fixture
def few_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MOST_NAMES", len(SUBJECTS))


@pytest.mark.usefixtures("few_names")
def test_each_cluster_is_named_by_what_tells_it_from_the_others() -> None:
    names = interest_names(TEXTS, embed(TEXTS), embed)
    assert len(names) == len(SUBJECTS)
    for words in map(str.split, SUBJECTS):
        assert any(set(words) <= set(name.split()) for name in names)


@pytest.mark.usefixtures("few_names")
def test_names_begin_and_end_with_words_that_mean_something_and_are_short() -> None:
    for name in interest_names(TEXTS, embed(TEXTS), embed):
        words = name.lower().split()
        assert {words[0], words[-1]} & {"the", "of"} == set()
        assert len(words) <= MOST_WORDS
        assert parse_queries(name) == (name,)


def test_the_same_news_gives_the_same_names() -> None:
    assert interest_names(TEXTS, embed(TEXTS), embed) == interest_names(TEXTS, embed(TEXTS), embed)


def test_a_phrase_is_added_only_if_it_brings_the_name_nearer() -> None:
    """Every article of this cluster says both phrases; `lithium plant` alone is as near as it gets."""
    texts = ["lithium plant"] * 6
    assert interest_names(texts, embed(texts), embed) == ["lithium plant"]


def test_news_that_shares_no_phrase_has_no_name() -> None:
    texts = ["one", "two"]
    assert interest_names(texts, np.eye(2, dtype=np.float32), embed) == []
