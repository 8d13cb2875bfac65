"""From articles that have just been taken to the readers who should see them: the first step of the reverse path.

It is a step of the article worker and not a consumer of its own, because there and only there are three things known
that it needs: the article's vector, whether another article told the same story, and whether the article is new. The
collection of articles is the memory of what has been announced: an article is matched just before it is stored, so a
version sent again, a replay or a restart finds it stored and is silent for as long as the article lives. A crash
between the two repeats the matches under the same keys, and the second step (`stream/matches/announcer.py`) knows them.
A consumer group of its own would embed each article again, read the same stories again 0.2 s later (strong reads), and
race the indexer for the answer to "is it new?"; it would not be independent either, as both lean on the same Milvus.

Readers are found by exact search: 100,000 stored queries cost about 20 ms for each article on a shared core.
"""

from collections.abc import Sequence

import numpy as np

from schemas.clients.vector_store import StoredArticle, UserQueryStore
from schemas.codec import MATCHES
from schemas.config import Matches
from schemas.names import Topic
from stream import monitoring
from stream.matches.rules import fresh_match, is_news, nearest_readers, rows_wanted
from stream.producer import Outgoing, Producer

SEARCHED_AT_ONCE = 16  # a backlog must not become one search that takes longer than the store's deadline


class Matcher:
    """Sends who may be told of each article to the topic of match candidates, keyed by reader."""

    def __init__(self, settings: Matches, store: UserQueryStore, producer: Producer) -> None:
        self._settings, self._store, self._producer = settings, store, producer
        self._age_ms = int(settings.article_age_seconds * 1000)

    async def match(self, articles: Sequence[StoredArticle], now_ms: int) -> None:
        """Returns when the broker has every candidate. Raises RetryableError; calling again is right."""
        if not self._settings.max_readers:
            return
        news = [row for row in articles if is_news(row.article, now_ms, self._age_ms)]
        for first in range(0, len(news), SEARCHED_AT_ONCE):
            await self._match(news[first : first + SEARCHED_AT_ONCE], now_ms)

    async def _match(self, news: Sequence[StoredArticle], now_ms: int) -> None:
        found = await self._store.search_user_queries(
            np.stack([row.embedding for row in news]),
            limit=rows_wanted(self._settings.max_readers),
            now_ms=now_ms,
            min_similarity=self._settings.min_similarity,
        )
        candidates = [
            fresh_match(row.article, hit, now_ms)
            for row, hits in zip(news, found, strict=True)
            for hit in nearest_readers(hits, self._settings.max_readers)
        ]
        await self._producer.send(
            [Outgoing(Topic.MATCH_CANDIDATES, one.user_id.encode(), MATCHES.encode(one)) for one in candidates]
        )
        monitoring.ARTICLES_MATCHED.inc(len(news))
        monitoring.MATCH_CANDIDATES.inc(len(candidates))
