"""The reader's own latest signals as stored queries.

They need no language model, so they are there within the second, whatever the student does: what candidates are found
by until there is a list, beside it, and instead of it.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.clients.models import Embedder
from schemas.clients.vector_store import SIGNAL_SLOTS, UserQueryStore, signal_write
from schemas.codec import Codec
from schemas.codecs import JSON_CODECS, Codecs
from schemas.config import Interests
from schemas.names import EMBEDDING_DIMENSIONS, Topic
from schemas.queries import QueryList, QueryRequest, signals_as_queries
from stream import monitoring
from stream.dead_letters import SourceRecord
from stream.interests.cleaning import SignalCleaner
from stream.interests.erasing import erase_readers
from stream.interests.requests import Answered, read_requests
from stream.producer import Outgoing, Producer
from stream.refusals import process_apart

STAGE = "signals"


class SignalWriter:
    """Answers requests with the signals' rows."""

    def __init__(
        self,
        settings: Interests,
        embedder: Embedder,
        store: UserQueryStore,
        producer: Producer,
        clock_ms: Callable[[], int],
        codecs: Codecs = JSON_CODECS,
        cleaner: SignalCleaner | None = None,  # None: the rules alone clean
    ) -> None:
        self._settings = settings
        self._cleaner = cleaner
        self._embedder = embedder
        self._store = store
        self._producer = producer
        self._clock_ms = clock_ms
        self._codecs = codecs
        self._answered = Answered(STAGE)

    async def process(self, records: Sequence[SourceRecord]) -> None:
        """Store the signals of each reader's newest request. Raises RetryableError; calling again is right."""
        await process_apart(self._process, records, producer=self._producer, stage=STAGE, clock_ms=self._clock_ms)

    async def _process(self, records: Sequence[SourceRecord]) -> None:
        now_ms = self._clock_ms()
        requests = read_requests(records, self._codecs.requests, stage=STAGE, now_ms=now_ms)
        await self._producer.send(requests.letters)
        monitoring.DEAD_LETTERS.labels(STAGE).inc(len(requests.letters))
        self._answered.forget(requests.erased)
        await erase_readers(requests.erased, SIGNAL_SLOTS, store=self._store, producer=self._producer, stage=STAGE)
        asked = self._answered.unanswered(requests.newest)
        cleaned = await self._cleaner.clean(asked) if self._cleaner else asked
        lists = [self._list(request, now_ms) for request in cleaned]
        vectors = await embed_lists(self._embedder, [row.signals for row in lists])
        await self._store.write_user_queries(
            [signal_write(row, found) for row, found in zip(lists, vectors, strict=True)]
        )
        await self._producer.send([logged(row, self._codecs.lists) for row in lists])
        for request in asked:
            self._answered.note(request)
        note_written(STAGE, lists, self._clock_ms())

    def _list(self, request: QueryRequest, now_ms: int) -> QueryList:
        return QueryList(
            user_id=request.user_id,
            queries=(),
            signals=signals_as_queries(request.profile, limit=self._settings.signal_queries),
            source="signals",
            profile_fingerprint=request.profile_fingerprint,
            model="",
            model_version="",
            prompt_version="",
            generated_at=now_ms,
            expires_at=now_ms + int(self._settings.list_ttl_seconds * 1000),
            accepted_at=request.accepted_at,
        )


async def embed_lists(embedder: Embedder, lists: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
    """The vectors of each list, [len(list), 384], by one call for all distinct texts."""
    texts = list(dict.fromkeys(text for row in lists for text in row))
    vectors = await embedder.embed(texts) if texts else np.empty((0, EMBEDDING_DIMENSIONS), np.float32)
    at = {text: number for number, text in enumerate(texts)}
    return [vectors[[at[text] for text in row]] for row in lists]


def note_written(stage: str, lists: Sequence[QueryList], now_ms: int) -> None:
    """Count the lists and how old the newest event behind each is, now that its rows are stored."""
    for row in lists:
        monitoring.LISTS_WRITTEN.labels(stage, row.source).inc()
        if row.accepted_at:
            monitoring.FRESHNESS_SECONDS.labels(row.source).observe(max(0, now_ms - row.accepted_at) / 1000)


def logged(row: QueryList, codec: Codec[QueryList]) -> Outgoing:
    return Outgoing(Topic.QUERY_LISTS, row.user_id.encode(), codec.encode(row))
