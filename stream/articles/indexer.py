"""From records of the articles topic to articles that can be found: decode, embed, one per story, announce, store."""

import asyncio
from collections.abc import Callable, Collection, Sequence

import msgspec

from schemas.article import Article, embedded_text, title_key
from schemas.clients.models import Embedder
from schemas.clients.vector_store import ArticleStore, SimilarStory, StoredArticle, Story, Vectors
from schemas.codec import ARTICLES, Codec
from schemas.config import Articles
from schemas.errors import InvalidRecord
from stream import monitoring
from stream.articles.rules import Arrival, appears, choose, is_live, rivals_of, with_expiry
from stream.dead_letters import SourceRecord, dead_letter
from stream.matches.matcher import Matcher
from stream.producer import Outgoing, Producer
from stream.refusals import process_apart

STAGE = "articles"
_NEIGHBOURS = 5  # enough to see past an article's own earlier version


class Reading(msgspec.Struct, frozen=True):
    """A batch of records, read."""

    live: tuple[Article, ...]  # the newest version of each id
    withdrawn: frozenset[str]  # ids to delete: tombstones, and what has expired on arrival
    expired: int
    superseded: int  # versions that a later one in the same batch replaces
    letters: tuple[Outgoing, ...]


class ArticleIndexer:
    """Embeds and stores articles; nothing of a batch is lost or half-done when a part is away: process it again."""

    def __init__(
        self,
        settings: Articles,
        embedder: Embedder,
        store: ArticleStore,
        producer: Producer,
        clock_ms: Callable[[], int],
        codec: Codec[Article] = ARTICLES,
        *,
        matcher: Matcher | None = None,
    ) -> None:
        self._settings = settings
        self._embedder = embedder
        self._store = store
        self._producer = producer
        self._clock_ms = clock_ms
        self._codec = codec
        self._matcher = matcher  # None = no reader is told of new articles

    async def process(self, records: Sequence[SourceRecord]) -> None:
        """Index a batch. Raises RetryableError; calling again with the same records is right.

        A record that a part refuses for good is found by halving the batch, and becomes a dead letter.
        """
        await process_apart(self._index, records, producer=self._producer, stage=STAGE, clock_ms=self._clock_ms)

    async def _index(self, records: Sequence[SourceRecord]) -> None:
        now_ms = self._clock_ms()
        reading = read(records, self._codec, now_ms=now_ms, ttl_ms=int(self._settings.ttl_seconds * 1000))
        await self._producer.send(reading.letters)
        arrivals = await self._arrivals(reading.live, now_ms)
        choice = choose(arrivals, similarity=self._settings.same_story_similarity)
        model = await self._embedder.version() if choice.kept else ""
        rows = [StoredArticle(article=a.article, embed_model=model, embedding=a.embedding) for a in choice.kept]
        if self._matcher:  # before they are stored: what is in the store has been announced
            new = [row for row, arrival in zip(rows, choice.kept, strict=True) if appears(arrival)]
            await self._matcher.match(new, now_ms)
        await self._store.upsert_articles(rows)
        await self._store.delete_articles(choice.gone | reading.withdrawn)
        _count(reading, kept=len(choice.kept))

    async def _arrivals(self, articles: Sequence[Article], now_ms: int) -> list[Arrival]:
        if not articles:
            return []
        vectors = await self._embedder.embed([embedded_text(article) for article in articles])
        titled, similar, stored = await self._stored_before(articles, vectors, now_ms)
        threshold = self._settings.same_story_similarity
        return [
            Arrival(
                article=article,
                embedding=vector,
                rivals=rivals_of(article, titled, near, threshold),
                stored=article.article_id in stored,
            )
            for article, vector, near in zip(articles, vectors, similar, strict=True)
        ]

    async def _stored_before(
        self, articles: Sequence[Article], vectors: Vectors, now_ms: int
    ) -> tuple[list[Story], list[list[SimilarStory]], Collection[str]]:
        """Stories of the same titles, the nearest of each vector, and which ids are stored; strong reads, at once."""
        keys = {title_key(article.title) for article in articles} - {""}
        return await asyncio.gather(
            self._store.stories_titled(keys, now_ms=now_ms),
            self._store.find_similar(vectors, limit=_NEIGHBOURS, now_ms=now_ms),
            self._store.article_vectors([article.article_id for article in articles], now_ms=now_ms, strong=True),
        )


def read(records: Sequence[SourceRecord], codec: Codec[Article], *, now_ms: int, ttl_ms: int) -> Reading:
    """Decode `records`; they come in the topic's order, so a later version of an id is the newer one.

    A record without a value withdraws the article named by its key.
    """
    newest: dict[str, Article | None] = {}
    letters: list[Outgoing] = []
    for record in records:
        try:
            article_id, article = _decode(record, codec, ttl_ms)
        except InvalidRecord as error:
            letters.append(dead_letter(record, stage=STAGE, reason=str(error), failed_at_ms=now_ms))
            continue
        newest[article_id] = article
    live = tuple(article for article in newest.values() if article and is_live(article, now_ms))
    return Reading(
        live=live,
        withdrawn=frozenset(newest) - {article.article_id for article in live},
        expired=sum(article is not None for article in newest.values()) - len(live),
        superseded=len(records) - len(letters) - len(newest),
        letters=tuple(letters),
    )


def _decode(record: SourceRecord, codec: Codec[Article], ttl_ms: int) -> tuple[str, Article | None]:
    if record.value is None and record.key:
        return record.key.decode(errors="replace"), None
    article = with_expiry(codec.decode(record.value), ttl_ms)
    return article.article_id, article


def _count(reading: Reading, *, kept: int) -> None:
    monitoring.DEAD_LETTERS.labels(STAGE).inc(len(reading.letters))
    monitoring.ARTICLES_INDEXED.inc(kept)
    skipped = {
        "same story": len(reading.live) - kept,
        "expired": reading.expired,
        "newer version": reading.superseded,
    }
    for why, count in skipped.items():
        monitoring.ARTICLES_SKIPPED.labels(why).inc(count)
