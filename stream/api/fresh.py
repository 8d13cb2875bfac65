"""Who should see an article, and what a reader should see now: GET /v1/articles/{id}/readers, /v1/users/{id}/fresh."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Any

import msgspec
import numpy as np
from fastapi import APIRouter, Header, HTTPException, Path, Query, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from schemas.clients.vector_store import Store, UserQueryHit
from schemas.codec import MATCHES, Codec
from schemas.config import Matches
from schemas.errors import InvalidRecord, RetryableError
from schemas.match import FreshMatch
from schemas.profile import seen_articles
from stream import monitoring
from stream.api.documentation import responses
from stream.api.fresh_feed import FreshFeed, HeldMatch, Place, place_of
from stream.api.http import RETRY_SECONDS, Receive, Scope, Send, answer
from stream.api.messages import MAX_CANDIDATES, Problem, ReaderAnswer, ReadersAnswer
from stream.api.parameters import UserId
from stream.api.views import ReaderViews
from stream.matches.rules import nearest_readers, rows_wanted

STREAM_SECONDS = 3_600.0  # then the client comes back: with a key that was revoked meanwhile it cannot
SEND_SECONDS = 30.0  # a client that takes nothing for so long has gone
DEFAULT_READERS = 20

ArticleId = Annotated[str, Path(min_length=1, max_length=128, examples=["a-1"], description="The article.")]
ReaderCount = Annotated[int, Query(ge=1, le=MAX_CANDIDATES, description="How many readers.")]
Similarity = Annotated[
    Annotated[float, Field(ge=-1, le=1)] | SkipJsonSchema[None],
    Query(description="Least cosine; the setting's without it."),
]
LastEventId = Annotated[
    str | SkipJsonSchema[None], Header(description="`id` of the last match that was taken; a browser sends it.")
]


class FreshParts(msgspec.Struct, frozen=True, kw_only=True):
    """What the two routes lean on."""

    store: Store
    views: ReaderViews
    feed: FreshFeed
    settings: Matches
    clock_ms: Callable[[], int]
    codec: Codec[FreshMatch] = MATCHES


def add_fresh(router: APIRouter, parts: FreshParts) -> None:
    @router.get(
        "/v1/articles/{article_id:id}/readers",
        summary="Readers for an article",
        responses=responses(ReadersAnswer, 401, 404, 422, 503),
    )
    async def get_readers(
        article_id: ArticleId, k: ReaderCount = DEFAULT_READERS, min_similarity: Similarity = None
    ) -> Response:
        """Whose stored queries are nearest to a stored article, the most similar first; for tests and editors.

        Readers who have clicked it are left out. Nobody is told anything: the bounds by the hour do not count here.
        """
        least = parts.settings.min_similarity if min_similarity is None else min_similarity
        found = await readers_of(parts, article_id, k=k, least=least)
        return answer(found) if found else answer(Problem("this article is not stored: check the id"), 404)

    @router.get(
        "/v1/users/{user_id:id}/fresh",
        summary="A reader's fresh articles, as they appear",
        response_class=StreamingResponse,
        responses=_documented(),
    )
    async def get_fresh(user_id: UserId, last_event_id: LastEventId = None) -> Response:
        """Server-sent events: `match` with a fresh match as JSON, `missed` when matches were no longer held.

        It begins with the next match, or after `Last-Event-ID`. Articles that the reader has clicked are left out. The
        stream ends after an hour at most; clients connect again by themselves.
        """
        if parts.feed.is_full:
            told = f"{parts.settings.max_streams} streams are open here: try again, or raise matches.max_streams"
            raise HTTPException(503, told, {"Retry-After": str(RETRY_SECONDS)})
        cursor = place_of(last_event_id or "") or parts.feed.latest(user_id)
        return FreshStream(_events(parts, user_id, cursor))


async def readers_of(parts: FreshParts, article_id: str, *, k: int, least: float) -> ReadersAnswer | None:
    """None when the article is not stored. Raises RetryableError."""
    now_ms = parts.clock_ms()
    vectors = await parts.store.article_vectors([article_id], now_ms=now_ms)
    if article_id not in vectors:
        return None
    (hits,) = await parts.store.search_user_queries(
        vectors[article_id][np.newaxis], limit=rows_wanted(2 * k), now_ms=now_ms, min_similarity=least
    )
    unseen = (hit for hit in nearest_readers(hits, 2 * k) if not _has_seen(parts.views, hit.user_id, article_id))
    readers = [_reader(hit, now_ms) for hit in unseen][:k]
    return ReadersAnswer(article_id=article_id, readers=readers)


class FreshStream(StreamingResponse):
    """A stream that ends when its client takes nothing any more, and frees its place at once."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        async def patient(message: Any) -> None:
            async with asyncio.timeout(SEND_SECONDS):
                await send(message)

        try:
            await super().__call__(scope, receive, patient)
        except TimeoutError:
            return  # uvicorn closes the connection of an answer that is not complete
        finally:
            await self._events.aclose()


async def _events(parts: FreshParts, user_id: str, cursor: Place) -> AsyncGenerator[bytes, None]:
    yield format_sse_event(retry=RETRY_SECONDS * 1000)
    news = parts.feed.news(user_id, cursor, seconds=STREAM_SECONDS)
    try:
        async for found in news:
            if found.missed:
                yield format_sse_event(event="missed", data_str="{}")
            for held in found.matches:
                if (event := _event(parts, user_id, held)) is not None:
                    yield event
            if not found.matches:
                yield KEEPALIVE_COMMENT
    except RetryableError:
        return  # the schema is not known yet: the client comes back for what it has not seen
    finally:
        await news.aclose()


def _event(parts: FreshParts, user_id: str, held: HeldMatch) -> bytes | None:
    """None for what is not worth telling any more."""
    try:
        match = parts.codec.decode(held.value)
    except InvalidRecord:
        return None
    erased = parts.views.ready and parts.views.profile(user_id) is None
    if erased or match.expires_at <= parts.clock_ms() or _has_seen(parts.views, user_id, match.article_id):
        return None
    monitoring.FRESH_SENT.inc()
    return format_sse_event(event="match", data_str=MATCHES.encode(match).decode(), id=str(held.place))


def _has_seen(views: ReaderViews, user_id: str, article_id: str) -> bool:
    profile = views.profile(user_id)
    return profile is not None and article_id in seen_articles(profile)


def _reader(hit: UserQueryHit, now_ms: int) -> ReaderAnswer:
    return ReaderAnswer(
        user_id=hit.user_id,
        query=hit.query,
        source=hit.source,
        similarity=hit.similarity,
        list_age_seconds=max(0, now_ms - hit.generated_at) / 1000,
    )


def _documented() -> dict[int | str, dict[str, Any]]:
    found = responses(ReadersAnswer, 401, 422, 503)
    found[200] = {
        "description": "A stream of events.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
    return found
