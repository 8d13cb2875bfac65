"""What there is for a reader: stored query vectors, one search for all of them, one merge. No model is ever asked.

Both answers are found for every reader, by the stored queries (the path) and without them, whichever will be shown: so
both arms of an experiment go the same way, and the log knows what the other arm would have seen. When the store is away
the last answers stand in, marked as stale.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec
import numpy as np

from schemas.candidates import Candidate, CandidateSource, Hit, QueryHits, merge_candidates
from schemas.clients.vector_store import Store, UserQuery, Vectors
from schemas.config import Api
from schemas.errors import RetryableError, Unavailable
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


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """The stored query behind a candidate."""

    slot: int
    model: str
    model_version: str
    prompt_version: str
    generated_at: int  # UTC ms


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate, and where it comes from. `exclusive`: queries of one source found it, and nothing else did."""

    candidate: Candidate
    origin: Origin | None = None
    exclusive: bool = False


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """One way to answer. `spare` are the next best, when they were asked for."""

    source: CandidateSource
    candidates: tuple[Ranked, ...]
    spare: tuple[Ranked, ...] = ()
    generated_at: int | None = None  # UTC ms: of the newest queries used

    def without(self, exclude: Collection[str], k: int) -> "Ranking":
        kept = tuple(row for row in self.candidates if row.candidate.article_id not in exclude)[:k]
        return msgspec.structs.replace(self, candidates=kept, spare=())


class Lookup(msgspec.Struct, frozen=True, kw_only=True):
    """What there is for a reader, by the path (None: no stored queries) and without it."""

    path: Ranking | None
    recent: Ranking
    stale: bool = False

    def answer(self, path: bool) -> Ranking:
        """What is shown with the path on or off."""
        return self.path if path and self.path else self.recent

    @property
    def triggered(self) -> bool:
        return self.path is not None and bool(self.path.candidates)


class _Newest(msgspec.Struct, frozen=True):
    hits: list[Hit]
    read_at: float


class Recommender:
    def __init__(self, settings: Api, store: Store, queries: QueryCache, monotonic: Callable[[], float]) -> None:
        self._settings, self._store, self._queries, self._monotonic = settings, store, queries, monotonic
        self._patient = PatientStore(monotonic)
        self._newest = _Newest([], -math.inf)
        self._newest_wanted = False
        self._reading_newest = asyncio.Lock()
        self._last: OrderedDict[str, Ranking] = OrderedDict()
        self._forgotten = 0  # how many readers, so far

    async def queries(self, user_id: str, now_ms: int) -> Rows:
        """The reader's rows as they are stored. Raises RetryableError."""
        return await self._patient.read(lambda: self._store.user_queries(user_id, now_ms=now_ms))

    async def look_up(
        self, user_id: str, *, k: int, exclude: Collection[str], now_ms: int, known: bool, spare: bool = False
    ) -> Lookup | None:
        """None for a reader who is not `known` and has no queries. Raises RetryableError when nothing can be served.

        `spare` asks for as many candidates again, the next best ones, which an order drawn by chance may show.
        """
        forgotten = self._forgotten
        try:
            rows = await self._patient.read(lambda: self._queries.rows(user_id, now_ms))
            if not rows and not known:
                return None
            newest = await self._newest_articles(now_ms)
            recent = _recent(newest, k, exclude, spare)
            path = await self._path(rows, recent, k, exclude, now_ms, spare) if rows else None
        except RetryableError:
            return self._remembered(user_id, k, exclude)
        if path and forgotten == self._forgotten:  # or it may be of a reader who was erased in the meantime
            self._remember(user_id, path)
        return Lookup(path=path, recent=recent)

    async def nearest(self, vectors: Vectors, *, k: int, now_ms: int) -> list[Hit]:
        """The articles nearest to one vector. Raises RetryableError."""
        found = await self._patient.read(lambda: self._store.search_articles(vectors, limit=k, now_ms=now_ms))
        return found[0]

    def forget(self, user_id: str) -> None:
        self._forgotten += 1
        self._queries.forget(user_id)
        self._last.pop(user_id, None)

    async def keep_newest(self, clock_ms: Callable[[], int]) -> None:
        """Until cancelled: read the newest articles again before they are old, so that requests do not wait for it."""
        while True:
            await asyncio.sleep(NEWEST_SECONDS / 2)
            if self._newest_wanted:
                self._newest_wanted = False
                with suppress(RetryableError):  # whoever needs them next is told
                    await self._newest_articles(clock_ms(), older_than_seconds=0.0)

    async def _path(
        self, rows: Rows, recent: Ranking, k: int, exclude: Collection[str], now_ms: int, spare: bool
    ) -> Ranking:
        vectors = np.stack([row.embedding for row in rows])
        enough = math.ceil(2 * ((1 + spare) * k + len(exclude)) / len(rows))  # queries share hits
        limit = min(MAX_HITS, max(self._settings.articles_per_query, enough))
        found = await self._patient.read(lambda: self._store.search_articles(vectors, limit=limit, now_ms=now_ms))
        lists = [self._votes(row, hits) for row, hits in zip(rows, found, strict=True)]
        quota = self._settings.query_quota
        merged = merge_candidates(lists, k=k, seen=exclude, query_quota=quota)
        seen = {*exclude, *(candidate.article_id for candidate in merged)}
        more = merge_candidates(lists, k=k, seen=seen, query_quota=quota) if spare else ()
        tell = _Provenance(rows, lists, recent)
        source: CandidateSource = "student" if any(row.source == "student" for row in rows) else "signals"
        generated_at = max(row.generated_at for row in rows)
        return Ranking(source=source, candidates=tell(merged), spare=tell(more), generated_at=generated_at)

    def _votes(self, row: UserQuery, hits: list[Hit]) -> QueryHits:
        weights = {"student": self._settings.student_weight, "signals": self._settings.signal_weight}
        return QueryHits(row.query, row.source, weights[row.source], hits)

    async def _newest_articles(self, now_ms: int, *, older_than_seconds: float = NEWEST_SECONDS) -> list[Hit]:
        self._newest_wanted |= older_than_seconds > 0
        async with self._reading_newest:
            if self._monotonic() - self._newest.read_at > older_than_seconds:
                hits = await self._patient.read(
                    lambda: self._store.newest_articles(limit=NEWEST_ARTICLES, now_ms=now_ms)
                )
                self._newest = _Newest(hits, self._monotonic())
        return self._newest.hits

    def _remember(self, user_id: str, path: Ranking) -> None:
        self._last[user_id] = path.without((), REMEMBERED_CANDIDATES)
        self._last.move_to_end(user_id)
        if len(self._last) > self._settings.vector_cache_readers:
            self._last.popitem(last=False)

    def _remembered(self, user_id: str, k: int, exclude: Collection[str]) -> Lookup:
        """The reader's last answer and the newest articles as last read; raises Unavailable when there is neither."""
        last = self._last.get(user_id)
        if last is None and not self._newest.hits:
            raise Unavailable(self._patient.failure)
        recent = _recent(self._newest.hits, k, exclude, spare=False)
        return Lookup(path=last and last.without(exclude, k), recent=recent, stale=True)


class _Provenance:
    """Tells of candidates which stored query brought each, and whether anything else would have."""

    def __init__(self, rows: Rows, lists: Sequence[QueryHits], recent: Ranking) -> None:
        self._origins: dict[tuple[str, str], Origin] = {(row.source, row.query): _origin(row) for row in rows}
        self._sources: dict[str, set[CandidateSource]] = {}
        for found in lists:
            for hit in found.hits:
                self._sources.setdefault(hit.article_id, set()).add(found.source)
        for row in recent.candidates:
            self._sources.setdefault(row.candidate.article_id, set()).add("recent")

    def __call__(self, candidates: Sequence[Candidate]) -> tuple[Ranked, ...]:
        return tuple(
            Ranked(
                candidate=candidate,
                origin=self._origins.get((candidate.source, candidate.query)),
                exclusive=len(self._sources[candidate.article_id]) == 1,
            )
            for candidate in candidates
        )


def _origin(row: UserQuery) -> Origin:
    return Origin(
        slot=row.slot,
        model=row.model,
        model_version=row.model_version,
        prompt_version=row.prompt_version,
        generated_at=row.generated_at,
    )


def _recent(newest: list[Hit], k: int, exclude: Collection[str], spare: bool) -> Ranking:
    places = 2 * k if spare else k
    enough = newest[: places + len(exclude)]
    merged = merge_candidates([QueryHits("", "recent", 1.0, enough)], k=places, seen=exclude)
    rows = tuple(Ranked(candidate=candidate) for candidate in merged)
    return Ranking(source="recent", candidates=rows[:k], spare=rows[k:])
