"""The article worker's step, over twins: a new article is matched before it is stored, an old one never."""

import pytest

from schemas.article import Article
from schemas.clients.memory_models import MemoryEmbedder
from schemas.clients.memory_store import MemoryStore
from schemas.clients.vector_store import UserQueryHit, Vectors, signal_write
from schemas.codec import ARTICLES, MATCHES
from schemas.config import Articles, Matches
from schemas.errors import Unavailable
from schemas.match import FreshMatch
from schemas.names import Topic
from schemas.queries import QueryList
from stream.articles.indexer import ArticleIndexer
from stream.matches.matcher import Matcher
from stream.producer import MemoryProducer
from tests.stream.doubles import Record

NOW = 1_800_000_000_000
HOUR = 3_600_000


class AwayStore(MemoryStore):
    """`searches` and `upserts` are how many of them fail before one works."""

    searches = upserts = 0

    async def search_user_queries(
        self, vectors: Vectors, *, limit: int, now_ms: int, min_similarity: float
    ) -> list[list[UserQueryHit]]:
        if self.searches:
            self.searches -= 1
            raise Unavailable("Milvus does not answer")
        return await super().search_user_queries(vectors, limit=limit, now_ms=now_ms, min_similarity=min_similarity)

    async def upsert_articles(self, articles: object) -> None:
        if self.upserts:
            self.upserts -= 1
            raise Unavailable("Milvus does not answer")
        await super().upsert_articles(articles)  # type: ignore[arg-type]


class World:
    def __init__(self, settings: Matches | None = None) -> None:
        self.now_ms = NOW
        self.store, self.producer, self.embedder = AwayStore(), MemoryProducer(), MemoryEmbedder()
        matcher = Matcher(settings or Matches(min_similarity=0.5), self.store, self.producer)
        self.indexer = ArticleIndexer(
            Articles(), self.embedder, self.store, self.producer, lambda: self.now_ms, matcher=matcher
        )

    async def ask(self, user_id: str, *queries: str, expires_at: int = NOW + 100 * HOUR) -> None:
        written = QueryList(
            user_id=user_id,
            queries=(),
            signals=queries,
            source="signals",
            profile_fingerprint="f",
            model="m",
            model_version="1",
            prompt_version="p",
            generated_at=NOW - 60_000,
            expires_at=expires_at,
        )
        await self.store.write_user_queries([signal_write(written, await self.embedder.embed(queries))])

    async def publish(self, *articles: Article) -> None:
        await self.indexer.process(
            [
                Record(topic=Topic.ARTICLES, offset=at, key=a.article_id.encode(), value=ARTICLES.encode(a))
                for at, a in enumerate(articles)
            ]
        )

    def told(self) -> list[tuple[str, str]]:
        """(article, reader) of every candidate sent."""
        return [(match.article_id, match.user_id) for match in self.matches()]

    def matches(self) -> list[FreshMatch]:
        sent = [one for one in self.producer.sent if one.topic == Topic.MATCH_CANDIDATES]
        decoded = [MATCHES.decode(one.value) for one in sent]
        assert [one.key for one in sent] == [match.user_id.encode() for match in decoded]
        return decoded


def article(article_id: str, title: str, *, published_at: int = NOW - 1_000) -> Article:
    return Article(
        article_id=article_id,
        title=title,
        url=f"https://news.example/{article_id}",
        source="wire",
        published_at=published_at,
    )


async def test_a_new_article_finds_the_readers_who_wait_for_it() -> None:
    world = World()
    await world.ask("ann", "rain in spain", "cheap flights")
    await world.ask("bob", "stock markets")
    await world.publish(article("a", "rain in spain"))
    (match,) = world.matches()
    assert (match.article_id, match.user_id, match.query, match.source) == ("a", "ann", "rain in spain", "signals")
    assert (match.list_age_ms, match.matched_at, match.published_at) == (60_000, NOW, NOW - 1_000)


async def test_a_version_sent_again_a_replay_and_the_same_story_are_not_announced() -> None:
    world = World()
    await world.ask("ann", "rain in spain")
    await world.publish(article("a", "rain in spain"))
    await world.publish(article("a", "rain in spain"))
    await world.publish(article("a", "rain in Spain"), article("b", "Rain in Spain!", published_at=NOW))
    await world.publish(article("c", "RAIN in spain", published_at=NOW - 9_000))  # published first, comes last
    assert world.told() == [("a", "ann")]
    assert [hit.article_id for hit in await world.store.newest_articles(limit=9, now_ms=NOW)] == ["c"]


async def test_two_articles_of_one_story_in_a_batch_are_one() -> None:
    world = World()
    await world.ask("ann", "rain in spain")
    await world.publish(article("b", "Rain in Spain!", published_at=NOW), article("a", "rain in spain"))
    assert world.told() == [("a", "ann")]


async def test_what_was_published_long_ago_is_stored_and_not_announced() -> None:
    world = World()
    await world.ask("ann", "rain in spain")
    await world.publish(article("old", "rain in spain", published_at=NOW - 7 * HOUR))
    assert world.told() == []
    assert await world.store.article_vectors(["old"], now_ms=NOW)


async def test_readers_whose_list_has_expired_are_not_told() -> None:
    world = World()
    await world.ask("ann", "rain in spain", expires_at=NOW)
    await world.publish(article("a", "rain in spain"))
    assert world.told() == []


async def test_an_article_is_told_to_the_nearest_readers_up_to_the_bound() -> None:
    world = World(Matches(min_similarity=0.2, max_readers=2))
    await world.ask("far", "rain and wind and snow")
    await world.ask("near", "rain in spain")
    await world.ask("nearly", "rain in spain today")
    await world.publish(article("a", "rain in spain"))
    assert world.told() == [("a", "near"), ("a", "nearly")]


async def test_nobody_is_told_when_it_is_switched_off() -> None:
    world = World(Matches(max_readers=0))
    await world.ask("ann", "rain in spain")
    await world.publish(article("a", "rain in spain"))
    assert world.told() == []


@pytest.mark.parametrize("away", ["searches", "upserts", "sends"])
async def test_a_part_that_is_away_loses_no_match_and_stores_nothing_unannounced(away: str) -> None:
    world = World()
    await world.ask("ann", "rain in spain")
    if away == "sends":
        world.producer.failures = 1
    else:
        setattr(world.store, away, 1)
    arrived = article("a", "rain in spain")
    with pytest.raises(Unavailable):
        await world.publish(arrived)
    assert not await world.store.article_vectors(["a"], now_ms=NOW)
    world.now_ms += 5
    await world.publish(arrived)
    repeats = 2 if away == "upserts" else 1  # announced again under the same key: the second step knows it
    assert world.told() == [("a", "ann")] * repeats
    await world.publish(arrived)
    assert world.told() == [("a", "ann")] * repeats


async def test_an_article_that_was_withdrawn_may_appear_again() -> None:
    world = World()
    await world.ask("ann", "rain in spain")
    await world.publish(article("a", "rain in spain"))
    await world.indexer.process([Record(topic=Topic.ARTICLES, key=b"a", value=None)])
    await world.publish(article("a", "rain in spain"))
    assert world.told() == [("a", "ann")] * 2
