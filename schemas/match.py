"""The reverse path: a new article and the reader whose stored query it answers."""

import msgspec

from schemas.queries import Source


class FreshMatch(msgspec.Struct, frozen=True, kw_only=True):
    """Who should see an article that has just appeared, and why."""

    article_id: str
    user_id: str
    title: str
    url: str
    query: str  # the reader's stored query nearest to the article
    source: Source
    similarity: float  # cosine
    list_age_ms: int
    published_at: int  # UTC ms
    matched_at: int  # UTC ms
    expires_at: int  # UTC ms: of the article
