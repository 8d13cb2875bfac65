"""Candidates for a reader: stored query vectors, one search for all of them, one merge. No model is ever asked.

When the store is away the last answers stand in, marked as stale.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

import msgspec
import numpy as np

from schemas.candidates import Candidate, CandidateSource, Hit, QueryHits, merge_candidates
from schemas.clients.vector_store import Store, UserQuery, Vectors
from schemas.config import Api
from schemas.errors import RetryableError, Unavailable
from stream import monitoring
from stream.api.messages import CandidateAnswer
from stream.api.query_cache import QueryCache, Rows

Found = TypeVar("Found")

READ_SECONDS = 2.0  # a recommender waits no longer
REST_SECONDS = 1.0  # after a failure the store is left alone for so long, and answers come from memory at once
NEWEST_SECONDS = 5.0  # how old the list of newest articles may be
NEWEST_ARTICLES = 500
MAX_HITS = 1_000  # for each query
REMEMBERED_CANDIDATES = 20  # of a reader's last answer


class PatientStore:
    """Reads with a deadline; while the store rests after a failure they fail at once."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._rests_until = 0.0
        self.failure = ""

    async def read(self, operation: Callable[[], Awaitable[Found]]) -> Found:
        if self._monotonic() < self._rests_until:
            raise Unavailable(self.failure)
        try:
            async with asyncio.timeout(READ_SECONDS):
                return await operation()
        except TimeoutError as error:
            self._rest(f"the vector store did not answer in {READ_SECONDS:g} s: see `keenstream stack status`")
            raise Unavailable(self.failure) from error
        except RetryableError as error:
            self._rest(str(error))
            raise

    def _rest(self, failure: str) -> None:
        self._rests_until, self.failure = self._monotonic() + REST_SECONDS, failure


class _Newest(msgspec.Struct, frozen=True):
    hits: list[Hit]
    read_at: float


class _Answered(msgspec.Struct, frozen=True):
    answer: CandidateAnswer
    answered_at: float


class Recommender:
    def __init__(self, settings: Api, store: Store, queries: QueryCache, monotonic: Callable[[], float]) -> None:
        self._settings, self._store, self._queries, self._monotonic = settings, store, queries, monotonic
        self._patient = PatientStore(monotonic)
        self._newest = _Newest([], -math.inf)
        self._reading_newest = asyncio.Lock()
        self._last: OrderedDict[str, _Answered] = OrderedDict()
        self._forgotten = 0  # how many readers, so far

    async def queries(self, user_id: str, now_ms: int) -> Rows:
        """The reader's rows as they are stored. Raises RetryableError."""
        return await self._patient.read(lambda: self._store.user_queries(user_id, now_ms=now_ms))

    async def candidates(
        self, user_id: str, *, k: int, exclude: Collection[str], now_ms: int, known: bool
    ) -> CandidateAnswer | None:
        """None for a reader who is not `known` and has no queries. Raises RetryableError when nothing can be served."""
        forgotten = self._forgotten
        try:
            rows = await self._patient.read(lambda: self._queries.rows(user_id, now_ms))
            if not rows and not known:
                return None
            answer = await self._fresh(user_id, rows, k, exclude, now_ms)
            if forgotten == self._forgotten:  # or it may be of a reader who was erased in the meantime
                self._remember(answer)
        except RetryableError:
            answer = self._remembered(user_id, k, exclude)
        monitoring.API_CANDIDATES.labels(answer.source, str(answer.stale).lower()).inc()
        return answer

    async def nearest(self, vectors: Vectors, *, k: int, now_ms: int) -> list[Hit]:
        """The articles nearest to one vector. Raises RetryableError."""
        found = await self._patient.read(lambda: self._store.search_articles(vectors, limit=k, now_ms=now_ms))
        return found[0]

    def forget(self, user_id: str) -> None:
        self._forgotten += 1
        self._queries.forget(user_id)
        self._last.pop(user_id, None)

    async def _fresh(self, user_id: str, rows: Rows, k: int, exclude: Collection[str], now_ms: int) -> CandidateAnswer:
        if not rows:
            newest = await self._newest_articles(now_ms)
            return _answer(user_id, "recent", None, _recent(newest, k, exclude))
        vectors = np.stack([row.embedding for row in rows])
        enough = math.ceil(2 * (k + len(exclude)) / len(rows))  # queries share hits
        limit = min(MAX_HITS, max(self._settings.articles_per_query, enough))
        found = await self._patient.read(lambda: self._store.search_articles(vectors, limit=limit, now_ms=now_ms))
        lists = [self._votes(row, hits) for row, hits in zip(rows, found, strict=True)]
        merged = merge_candidates(lists, k=k, seen=exclude, query_quota=self._settings.query_quota)
        source: CandidateSource = "student" if any(row.source == "student" for row in rows) else "signals"
        age_seconds = max(0, now_ms - max(row.generated_at for row in rows)) / 1000
        return _answer(user_id, source, age_seconds, merged)

    def _votes(self, row: UserQuery, hits: list[Hit]) -> QueryHits:
        weights = {"student": self._settings.student_weight, "signals": self._settings.signal_weight}
        return QueryHits(row.query, row.source, weights[row.source], hits)

    async def _newest_articles(self, now_ms: int) -> list[Hit]:
        async with self._reading_newest:
            if self._monotonic() - self._newest.read_at > NEWEST_SECONDS:
                hits = await self._patient.read(
                    lambda: self._store.newest_articles(limit=NEWEST_ARTICLES, now_ms=now_ms)
                )
                self._newest = _Newest(hits, self._monotonic())
        return self._newest.hits

    def _remember(self, answer: CandidateAnswer) -> None:
        if answer.source == "recent":
            return
        kept = msgspec.structs.replace(answer, stale=True, candidates=answer.candidates[:REMEMBERED_CANDIDATES])
        self._last[answer.user_id] = _Answered(kept, self._monotonic())
        self._last.move_to_end(answer.user_id)
        if len(self._last) > self._settings.vector_cache_readers:
            self._last.popitem(last=False)

    def _remembered(self, user_id: str, k: int, exclude: Collection[str]) -> CandidateAnswer:
        """The reader's last answer, else the newest articles as last read; raises Unavailable when there is neither."""
        last = self._last.get(user_id)
        if last is not None:
            kept = tuple(c for c in last.answer.candidates if c.article_id not in exclude)[:k]
            age_seconds = (last.answer.list_age_seconds or 0.0) + self._monotonic() - last.answered_at
            return msgspec.structs.replace(last.answer, candidates=kept, list_age_seconds=age_seconds)
        if self._newest.hits:
            recent = _answer(user_id, "recent", None, _recent(self._newest.hits, k, exclude))
            return msgspec.structs.replace(recent, stale=True)
        raise Unavailable(self._patient.failure)


def _recent(newest: list[Hit], k: int, exclude: Collection[str]) -> tuple[Candidate, ...]:
    return merge_candidates([QueryHits("", "recent", 1.0, newest)], k=k, seen=exclude)


def _answer(
    user_id: str, source: CandidateSource, age_seconds: float | None, candidates: tuple[Candidate, ...]
) -> CandidateAnswer:
    return CandidateAnswer(
        user_id=user_id, source=source, list_age_seconds=age_seconds, stale=False, candidates=candidates
    )
