import numpy as np
import pytest
from numpy.typing import NDArray

from offline.training import interest_headlines as subject
from offline.training.interest_headlines import InterestHeadlines, interest_headlines
from offline.training.news_index import Vectors
from offline.training.proposals import Depths, votes_of

TOPICS = 3
PER_TOPIC = 8
TITLES = [f"topic {topic} happens again number {number}" for topic in range(TOPICS) for number in range(PER_TOPIC)]
DEPTHS = Depths(hits=PER_TOPIC, places=(4, 2 * PER_TOPIC))


def embed(texts: object) -> Vectors:
    """Each topic has a direction of its own; numbers within it differ a little."""
    rows = []
    for text in texts:  # type: ignore[attr-defined]
        words = text.split()
        row = np.full(TOPICS, 0.001 * int(words[-1]), np.float32)
        row[int(words[1])] = 1.0
        rows.append(row / np.linalg.norm(row))
    return np.stack(rows) if rows else np.empty((0, TOPICS), np.float32)


def wants(*topics: int) -> NDArray[np.float64]:
    return np.array([0.9 if at // PER_TOPIC in topics else 0.001 for at in range(len(TITLES))])


def made(titles: list[str], *readers: NDArray[np.float64]) -> InterestHeadlines:
    return interest_headlines(titles, embed(TITLES), embed, readers, DEPTHS)


def topics_of(queries: tuple[str, ...]) -> list[str]:
    return sorted(query.split()[1] for query in queries)


def test_a_list_has_a_headline_for_each_interest() -> None:
    headlines = made(TITLES, wants(0), wants(1), wants(0, 2))
    assert topics_of(headlines.list_for(wants(0, 2))) == ["0", "2"]
    assert topics_of(headlines.list_for(wants(1))) == ["1"]


def test_what_the_prompt_tells_is_preferred_to_a_headline_that_is_worth_as_much() -> None:
    headlines = made(TITLES, wants(0), wants(1))
    told = ["topic 1 happens again number 2"]
    votes = votes_of(embed(told) @ embed(TITLES).T, DEPTHS.hits)
    assert headlines.list_for(wants(1), told, votes) == tuple(told)
    assert topics_of(headlines.list_for(wants(0), told, votes)) == ["0"]


def test_like_readers_are_given_the_very_same_queries() -> None:
    headlines = made(TITLES, *[wants(0), wants(1)] * 5)
    nearly = wants(0) + np.linspace(0, 1e-6, len(TITLES))
    assert headlines.list_for(wants(0)) == headlines.list_for(nearly)


def test_what_no_list_needs_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert topics_of(tuple(made(TITLES, wants(0), wants(1)).queries)) == ["0", "1"]
    monkeypatch.setattr(subject, "MOST_HEADLINES", 1)
    assert topics_of(tuple(made(TITLES, wants(1), wants(0), wants(0)).queries)) == ["0"]


def test_the_candidates_are_taken_evenly_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MOST_CANDIDATES", TOPICS)
    headlines = made(TITLES, wants(0), wants(2))
    assert set(headlines.queries) <= {TITLES[0], TITLES[11], TITLES[-1]}


def test_a_headline_that_the_parser_would_cut_is_no_query() -> None:
    assert not made(["topic 0 happens; again number 1", "topic 0 happens " * 10 + "1"], wants(0)).queries


def test_no_usable_headline_makes_no_list() -> None:
    assert made([], wants(0)).list_for(wants(0)) == ()
