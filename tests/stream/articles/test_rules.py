import itertools

import numpy as np
import pytest

from schemas.article import Article
from schemas.clients.vector_store import SimilarStory, Story, Vector
from stream.articles.rules import Arrival, choose, is_live, rivals_of, with_expiry

SIMILARITY = 0.95


def article(article_id: str, *, title: str = "", published_at: int = 100, expires_at: int | None = None) -> Article:
    return Article(
        article_id=article_id,
        title=title or f"Title of {article_id}",
        url="",
        source="wire",
        published_at=published_at,
        expires_at=expires_at,
    )


def axis(number: int) -> Vector:
    return np.asarray(np.eye(384, dtype=np.float32)[number])


def near(number: int, cosine: float) -> Vector:
    return np.asarray(cosine * axis(number) + (1 - cosine**2) ** 0.5 * axis(number + 1), dtype=np.float32)


def story(article_id: str, *, title_key: str = "", published_at: int = 100) -> Story:
    return Story(article_id=article_id, title_key=title_key, published_at=published_at)


def arrival(one: Article, embedding: Vector, *rivals: Story) -> Arrival:
    return Arrival(article=one, embedding=embedding, rivals=rivals)


def kept_ids(*arrivals: Arrival) -> list[str]:
    return [kept.article.article_id for kept in choose(arrivals, similarity=SIMILARITY).kept]


def test_expiry_is_counted_from_publication() -> None:
    assert with_expiry(article("a", published_at=100), 50).expires_at == 150
    assert with_expiry(article("a", expires_at=7), 50).expires_at == 7


@pytest.mark.parametrize(("now_ms", "live"), [(149, True), (150, False), (151, False)])
def test_an_article_lives_until_its_expiry(now_ms: int, live: bool) -> None:
    assert is_live(article("a", expires_at=150), now_ms) is live


def test_different_stories_are_all_kept() -> None:
    assert kept_ids(arrival(article("a"), axis(0)), arrival(article("b"), axis(1))) == ["a", "b"]


def test_of_equal_titles_the_earlier_published_stays() -> None:
    late = arrival(article("a", title="Big — NEWS!", published_at=2), axis(0))
    early = arrival(article("b", title="big news", published_at=1), axis(1))
    choice = choose([late, early], similarity=SIMILARITY)
    assert [kept.article.article_id for kept in choice.kept] == ["b"]
    assert choice.gone == {"a"}


def test_titles_without_a_letter_are_not_equal() -> None:
    assert kept_ids(arrival(article("a", title="!!!"), axis(0)), arrival(article("b", title="???"), axis(1))) == [
        "a",
        "b",
    ]


@pytest.mark.parametrize(("cosine", "ids"), [(0.96, ["a"]), (0.94, ["a", "b"])])
def test_vectors_from_the_threshold_on_are_one_story(cosine: float, ids: list[str]) -> None:
    assert kept_ids(arrival(article("a"), axis(0)), arrival(article("b"), near(0, cosine))) == ids


def test_at_one_time_of_publication_the_smaller_id_stays() -> None:
    assert kept_ids(arrival(article("b"), axis(0)), arrival(article("a"), axis(0))) == ["a"]


def test_the_order_of_arrival_does_not_matter() -> None:
    arrivals = [arrival(article(name, published_at=ord(name) % 3), axis(0)) for name in "abcd"]
    outcomes = {tuple(kept_ids(*order)) for order in itertools.permutations(arrivals)}
    assert outcomes == {("c",)}


def test_a_stored_earlier_story_keeps_the_new_one_out() -> None:
    choice = choose([arrival(article("new"), axis(0), story("old", published_at=99))], similarity=SIMILARITY)
    assert not choice.kept
    assert choice.gone == {"new"}


def test_a_stored_later_story_gives_way_to_the_new_one() -> None:
    choice = choose([arrival(article("new"), axis(0), story("later", published_at=101))], similarity=SIMILARITY)
    assert [kept.article.article_id for kept in choice.kept] == ["new"]
    assert choice.gone == {"later"}


def test_a_stored_rival_with_a_new_version_is_judged_by_that_version() -> None:
    renewed = arrival(article("rival", title="Now about something else", published_at=1), axis(7))
    assert kept_ids(arrival(article("new"), axis(0), story("rival", published_at=1)), renewed) == ["rival", "new"]


def test_rivals_are_the_same_by_title_or_vector_but_never_itself() -> None:
    similar = [
        SimilarStory(story=story("twin"), similarity=0.95),
        SimilarStory(story=story("cousin"), similarity=0.949),
        SimilarStory(story=story("a"), similarity=1.0),
    ]
    titled = [story("namesake", title_key="title of a"), story("other", title_key="title of b")]
    rivals = rivals_of(article("a"), titled, similar, SIMILARITY)
    assert {rival.article_id for rival in rivals} == {"twin", "namesake"}
