"""Readers' query vectors, kept in memory until a newer list is seen, and then read again before anyone asks.

The store shows a write about 0.2 s late, so what is read soon after a new list was seen may still be the old rows:
they are served, but not kept.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice

import msgspec

from schemas.clients.vector_store import UserQuery, UserQueryStore
from schemas.errors import RetryableError
from schemas.queries import QueryList, Source
from stream import monitoring

SETTLED_SECONDS = 3.0  # after so long a read shows every row that was written before the list was seen
VISIBLE_SECONDS = 0.3  # by then a read usually shows them
READ_AHEAD = 8  # readers at once: turning their vectors into arrays holds the loop for some milliseconds
_NEVER_SHOWN = 2**63  # generated so late that no stored row shows it
PAUSE_SECONDS = 0.05  # between reads ahead, which must not slow down requests: at most 160 readers a second

Rows = tuple[UserQuery, ...]


class _SeenList(msgspec.Struct, frozen=True):
    source: Source
    generated_at: int
    seen_at: float


class QueryCache:
    """An LRU over `UserQueryStore.user_queries`; `monotonic` is in seconds."""

    def __init__(self, store: UserQueryStore, *, readers: int, monotonic: Callable[[], float]) -> None:
        self._store, self._readers, self._monotonic = store, readers, monotonic
        self._rows: OrderedDict[str, Rows] = OrderedDict()
        self._unsettled: OrderedDict[str, _SeenList] = OrderedDict()
        self._ahead: OrderedDict[str, float] = OrderedDict()  # readers to read ahead, since when

    async def rows(self, user_id: str, now_ms: int) -> Rows:
        """The reader's live rows; () when there are none."""
        cached = self.cached(user_id, now_ms)
        monitoring.API_CACHE.labels("hit" if cached else "miss").inc()
        if cached:
            return cached
        rows = await self._store.user_queries(user_id, now_ms=now_ms)
        if rows and self._shows_the_newest(user_id, rows):
            self._keep(user_id, rows)
        return rows

    def cached(self, user_id: str, now_ms: int) -> Rows:
        rows = self._rows.get(user_id, ())
        if rows:
            self._rows.move_to_end(user_id)
        return tuple(row for row in rows if row.expires_at > now_ms)

    def note(self, written: QueryList) -> None:
        """A list has been written: what is kept of its reader is old."""
        now = self._monotonic()
        self._rows.pop(written.user_id, None)
        self._unsettled[written.user_id] = _SeenList(written.source, written.generated_at, now)
        self._unsettled.move_to_end(written.user_id)
        self._want(written.user_id, now)
        while self._unsettled and now - next(iter(self._unsettled.values())).seen_at > SETTLED_SECONDS:
            self._unsettled.popitem(last=False)

    def forget(self, user_id: str) -> None:
        """The reader was erased: rows that are read soon after may be the erased ones, and are not kept either."""
        self._rows.pop(user_id, None)
        self._ahead.pop(user_id, None)
        self._unsettled[user_id] = _SeenList("signals", _NEVER_SHOWN, self._monotonic())
        self._unsettled.move_to_end(user_id)

    async def read_ahead(self, clock_ms: Callable[[], int]) -> None:
        """Until cancelled: read the rows of readers whose lists are new, so that requests find them here."""
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            try:
                await self.read_some(clock_ms())
            except RetryableError:
                await asyncio.sleep(SETTLED_SECONDS)  # nothing is lost: whoever asks reads the rows then

    async def read_some(self, now_ms: int) -> None:
        """One step of reading ahead. Raises RetryableError."""
        due_until = self._monotonic() - VISIBLE_SECONDS
        readers = [user_id for user_id, since in islice(self._ahead.items(), READ_AHEAD) if since <= due_until]
        if not readers:
            return
        found = await self._store.user_queries_of(readers, now_ms=now_ms)
        for user_id in readers:
            self._ahead.pop(user_id, None)
            rows = found.get(user_id, ())
            if rows and self._shows_the_newest(user_id, rows):
                self._keep(user_id, rows)

    def _want(self, user_id: str, now: float) -> None:
        self._ahead[user_id] = now
        self._ahead.move_to_end(user_id)
        if len(self._ahead) > self._readers:
            self._ahead.popitem(last=False)

    def _shows_the_newest(self, user_id: str, rows: Sequence[UserQuery]) -> bool:
        seen = self._unsettled.get(user_id)
        if seen is None or self._monotonic() - seen.seen_at > SETTLED_SECONDS:
            return True
        return any(row.source == seen.source and row.generated_at >= seen.generated_at for row in rows)

    def _keep(self, user_id: str, rows: Rows) -> None:
        self._rows[user_id] = rows
        self._rows.move_to_end(user_id)
        self._ahead.pop(user_id, None)
        if len(self._rows) > self._readers:
            self._rows.popitem(last=False)
