"""Which articles are stored: live ones, the newest version of each, and of one story the one published first.

Two articles tell the same story when their titles agree but for case, punctuation and spacing, or when their vectors
are near enough. The one published first stays (ties: the smaller id), whatever the order in which they arrive.
"""

from collections.abc import Iterable, Sequence

import msgspec

from schemas.article import Article, title_key
from schemas.clients.vector_store import SimilarStory, Story, Vector, expiry


class Arrival(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """An article that came, its vector, and the stored stories that may be the same one."""

    article: Article
    embedding: Vector
    rivals: Sequence[Story] = ()
    stored: bool = False  # an earlier version is in the store


class Choice(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    kept: tuple[Arrival, ...]
    gone: frozenset[str]  # ids to delete: same stories that came later, stored or new


def with_expiry(article: Article, ttl_ms: int) -> Article:
    """Counted from its publication, so that reading the article again changes nothing."""
    if article.expires_at is not None:
        return article
    return msgspec.structs.replace(article, expires_at=article.published_at + ttl_ms)


def is_live(article: Article, now_ms: int) -> bool:
    return expiry(article) > now_ms


def rivals_of(
    article: Article, titled: Iterable[Story], similar: Iterable[SimilarStory], similarity: float
) -> tuple[Story, ...]:
    """The stored stories that are the same as `article`'s, older versions of itself left out."""
    key = title_key(article.title)
    same = {story.article_id: story for story in titled if key and story.title_key == key}
    same |= {near.story.article_id: near.story for near in similar if near.similarity >= similarity}
    return tuple(story for story in same.values() if story.article_id != article.article_id)


def appears(arrival: Arrival) -> bool:
    """Of what is kept: is the story new to the store?"""
    return not arrival.stored and not arrival.rivals


def choose(arrivals: Sequence[Arrival], *, similarity: float) -> Choice:
    """One article for each story. A stored rival with a new version among the arrivals is judged by that version."""
    renewed = {arrival.article.article_id for arrival in arrivals}
    kept: list[Arrival] = []
    gone: set[str] = set()
    for arrival in sorted(arrivals, key=lambda arrival: _precedence(arrival.article)):
        rivals = [rival for rival in arrival.rivals if rival.article_id not in renewed]
        if any(_precedence(rival) < _precedence(arrival.article) for rival in rivals) or any(
            _same_story(arrival, earlier, similarity) for earlier in kept
        ):
            gone.add(arrival.article.article_id)
        else:
            kept.append(arrival)
            gone.update(rival.article_id for rival in rivals)
    return Choice(kept=tuple(kept), gone=frozenset(gone))


def _precedence(story: Article | Story) -> tuple[int, str]:
    return story.published_at, story.article_id


def _same_story(arrival: Arrival, earlier: Arrival, similarity: float) -> bool:
    key = title_key(arrival.article.title)
    if key and key == title_key(earlier.article.title):
        return True
    return float(arrival.embedding @ earlier.embedding) >= similarity
