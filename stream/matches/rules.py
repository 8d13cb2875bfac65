"""Who is told of a new article: rules without a broker or a clock.

Of an article: the readers whose nearest stored query is similar enough, the most similar first, at most so many.
Of a reader: no article twice, and at most so many in any hour. A reader's memory holds what these two need and nothing
else, so it can be forgotten an hour after its last change.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from schemas.article import Article
from schemas.clients.vector_store import MAX_FOUND, UserQueryHit, expiry
from schemas.match import FreshMatch

HOUR_MS: Final = 3_600_000
_ROWS_PER_READER = 4  # of one reader's queries, this many are rarely all near one article

Outcome = Literal["announced", "repeated", "expired", "late", "erased", "hourly bound"]


class Announced(msgspec.Struct, frozen=True, array_like=True):
    article_id: str
    at: int  # UTC ms


class ReaderMemory(msgspec.Struct, frozen=True, array_like=True):
    """What is remembered of a reader, oldest first; nothing written at or before `erased_before` is announced."""

    changed_at: int = 0  # UTC ms
    announced: tuple[Announced, ...] = ()
    erased_before: int = 0  # UTC ms


def rows_wanted(max_readers: int) -> int:
    """How many stored queries to ask for, so that `max_readers` readers are usually among them."""
    return min(MAX_FOUND, max_readers * _ROWS_PER_READER)


def nearest_readers(hits: Iterable[UserQueryHit], max_readers: int) -> list[UserQueryHit]:
    """The best hit of each reader, the most similar reader first (ties: by user_id), at most `max_readers`."""
    best: dict[str, UserQueryHit] = {}
    for hit in hits:
        known = best.get(hit.user_id)
        if known is None or hit.similarity > known.similarity:
            best[hit.user_id] = hit
    return sorted(best.values(), key=lambda hit: (-hit.similarity, hit.user_id))[:max_readers]


def is_news(article: Article, now_ms: int, age_ms: int) -> bool:
    """Has it just appeared? What is taken from an old feed is found by readers, but not announced to them."""
    return article.published_at > now_ms - age_ms and expiry(article) > now_ms


def fresh_match(article: Article, hit: UserQueryHit, now_ms: int) -> FreshMatch:
    return FreshMatch(
        article_id=article.article_id,
        user_id=hit.user_id,
        title=article.title,
        url=article.url,
        query=hit.query,
        source=hit.source,
        similarity=round(hit.similarity, 4),
        list_age_ms=max(0, now_ms - hit.generated_at),
        published_at=article.published_at,
        matched_at=now_ms,
        expires_at=expiry(article),
    )


def announce(
    memory: ReaderMemory, match: FreshMatch, *, now_ms: int, per_reader_hour: int
) -> tuple[ReaderMemory, Outcome]:
    """The reader's memory after the match, and what becomes of it; `now_ms` never runs backwards for a reader."""
    recent = last_hour(memory.announced, now_ms)
    if any(one.article_id == match.article_id for one in recent):
        return memory, "repeated"
    if match.expires_at <= now_ms:
        return memory, "expired"
    if match.matched_at <= now_ms - HOUR_MS:  # no news any more, and an erasure meanwhile may be forgotten
        return memory, "late"
    if match.matched_at - match.list_age_ms <= memory.erased_before:
        return memory, "erased"
    if len(recent) >= per_reader_hour:
        return memory, "hourly bound"
    announced = (*recent, Announced(match.article_id, now_ms))
    return ReaderMemory(now_ms, announced, memory.erased_before), "announced"


def last_hour(announced: Sequence[Announced], now_ms: int) -> tuple[Announced, ...]:
    return tuple(one for one in announced if one.at > now_ms - HOUR_MS)


def erase(memory: ReaderMemory, erased_before: int, now_ms: int) -> ReaderMemory:
    """Without a trace of what was announced; matches that were under way meanwhile will not be."""
    return ReaderMemory(now_ms, (), max(memory.erased_before, erased_before))


def can_be_forgotten(memory: ReaderMemory, now_ms: int) -> bool:
    return memory.changed_at <= now_ms - HOUR_MS
