"""An API over twins, driven through HTTP without a server."""

from collections.abc import AsyncIterator, Sequence

import httpx
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from schemas.article import Article, embedded_text
from schemas.clients.memory_models import MemoryEmbedder
from schemas.clients.memory_store import MemoryStore
from schemas.clients.vector_store import StoredArticle, signal_write, student_write
from schemas.codec import LISTS
from schemas.config import Api, Config, Matches
from schemas.erasure import ErasureReceipt, StoreReceipt, StoreState
from schemas.errors import Unavailable
from schemas.experiment import Experiment
from schemas.names import Topic
from schemas.profile import Signal, UserProfile
from schemas.queries import QueryList
from stream.api.answering import Answering
from stream.api.application import Parts, create_api
from stream.api.exposures import ExposureLog
from stream.api.fresh_feed import FreshFeed
from stream.api.profile_rows import ProfileRows
from stream.api.query_cache import QueryCache
from stream.api.recommender import Recommender
from stream.api.request_memory import RequestMemory
from stream.api.views import ReaderViews
from stream.producer import MemoryProducer
from stream.profiles.record import ProfileRecord, decode_record, encode_record
from tests.stream.doubles import Record

NOW = 1_800_000_000_000
HOUR = 3_600_000


class SwitchedStore(MemoryStore):
    """The twin with a switch; `reads` counts what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.reads = 0

    def _asked(self) -> None:
        self.reads += 1
        if self.away:
            raise Unavailable("Milvus does not answer: start it with `keenstream stack up`")

    async def check(self) -> None:
        self._asked()

    async def search_articles(self, *args, **kwargs):  # type: ignore[no-untyped-def]  # the twin's own signature
        self._asked()
        return await super().search_articles(*args, **kwargs)

    async def user_queries(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        self._asked()
        return await super().user_queries(*args, **kwargs)

    async def user_queries_of(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        self._asked()
        return await super().user_queries_of(*args, **kwargs)

    async def newest_articles(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        self._asked()
        return await super().newest_articles(*args, **kwargs)


class SwitchedEmbedder(MemoryEmbedder):
    away = False

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self.away:
            raise Unavailable("Triton does not answer: start it with `keenstream stack up`")
        return await super().embed(texts)


class ScriptedEraser:
    """Answers each erasure with these stores; without any, Kafka is away."""

    def __init__(self) -> None:
        self.states: dict[str, StoreState] = {"profile": "clean", "queries": "clean"}
        self.asked, self.waited = "", 0.0

    async def erase(self, user_id: str, *, wait_seconds: float) -> ErasureReceipt:
        self.asked, self.waited = user_id, wait_seconds
        if not self.states:
            raise Unavailable("Kafka does not answer: start it with `keenstream stack up`")
        stores = [
            msgspec.convert({"store": store, "state": state, "unit": "rows", "found": 3}, StoreReceipt)
            for store, state in self.states.items()
        ]
        return ErasureReceipt(
            user_id=user_id,
            erased_before=NOW,
            requested_at=NOW,
            answered_at=NOW + 5,
            online_seconds=0.005,
            found_anything=True,
            complete=all(state == "clean" for state in self.states.values()),
            stores=tuple(stores),
        )


class World:
    """The API, its twins, and what a test wants to be true of them."""

    def __init__(self, settings: Api, experiments: tuple[Experiment, ...] = ()) -> None:
        self.now_ms, self.seconds = NOW, 0.0
        self.store, self.embedder, self.producer = SwitchedStore(), SwitchedEmbedder(), MemoryProducer()
        self.eraser = ScriptedEraser()
        self.kafka_away = False
        self.cache = QueryCache(self.store, readers=settings.vector_cache_readers, monotonic=lambda: self.seconds)
        self.recommender = Recommender(settings, self.store, self.cache, lambda: self.seconds)
        self.exposures = ExposureLog(self.producer, lambda: self.seconds)
        self.requests = RequestMemory()
        self.feed = FreshFeed(Matches())
        self.answering = Answering(self.recommender, experiments, self.exposures, self.requests, lambda: self.now_ms)
        self.views = ReaderViews(
            ProfileRows(),
            lambda data: decode_record(data).profile,
            on_list=self.cache.note,
            on_removed=self.answering.forget,
        )
        self.views.ready = True
        parts = Parts(
            store=self.store,
            views=self.views,
            recommender=self.recommender,
            answering=self.answering,
            exposures=self.exposures,
            requests=self.requests,
            producer=self.producer,
            embedder=self.embedder,
            check_kafka=self._check_kafka,
            clock_ms=lambda: self.now_ms,
            eraser=self.eraser,
            fresh=self.feed,
        )
        self.app = create_api(Config(api=settings), parts)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://api")

    async def _check_kafka(self) -> None:
        if self.kafka_away:
            raise Unavailable("Kafka does not answer: start it with `keenstream stack up`")

    async def publish(self, **titles: str) -> None:
        """Articles by id; each an hour older than the one before."""
        articles = [
            Article(
                article_id=name,
                title=title,
                url=f"https://news.example/{name}",
                source="wire",
                published_at=NOW - age * HOUR,
                expires_at=NOW + 1_000 * HOUR,
            )
            for age, (name, title) in enumerate(titles.items())
        ]
        vectors = await self.embedder.embed([embedded_text(article) for article in articles])
        await self.store.upsert_articles(
            [
                StoredArticle(article=article, embed_model="memory", embedding=vector)
                for article, vector in zip(articles, vectors, strict=True)
            ]
        )

    async def write_list(
        self, user_id: str, *, queries: tuple[str, ...] = (), signals: tuple[str, ...] = (), generated_at: int = NOW
    ) -> QueryList:
        written = QueryList(
            user_id=user_id,
            queries=queries,
            signals=signals,
            source="student" if queries else "signals",
            profile_fingerprint="f",
            model="student",
            model_version="7",
            prompt_version="p1",
            generated_at=generated_at,
            expires_at=NOW + HOUR,
        )
        asked, own = await self.embedder.embed(queries), await self.embedder.embed(signals)
        await self.store.write_user_queries([student_write(written, asked), signal_write(written, own)])
        return written

    def log_list(self, written: QueryList) -> None:
        """What the API sees on the topic after a list was stored."""
        key = written.user_id.encode()
        self.views.apply([Record(topic=Topic.QUERY_LISTS, key=key, value=LISTS.encode(written))])

    def know(self, user_id: str, *clicked: str) -> None:
        """A profile in the changelog, with clicks on these articles."""
        clicks = tuple(Signal(NOW, f"click-{name}", f"title {name}", article_id=name) for name in clicked)
        page = (Signal(NOW - 5, "page-1", "A page", "https://shop.example/1", "", "en"),)
        profile = UserProfile(user_id, page=page, click=clicks)
        value = encode_record(ProfileRecord(profile))
        self.views.apply([Record(topic=Topic.PROFILES_CHANGELOG, key=user_id.encode(), value=value)])

    def remove(self, user_id: str) -> None:
        self.views.apply([Record(topic=Topic.PROFILES_CHANGELOG, key=user_id.encode(), value=None)])


@pytest.fixture
def settings() -> Api:
    return Api()


@pytest.fixture
def experiments() -> tuple[Experiment, ...]:
    return ()


@pytest.fixture
async def world(settings: Api, experiments: tuple[Experiment, ...]) -> AsyncIterator[World]:
    made = World(settings, experiments)
    async with made.client:
        yield made


def event(event_id: str | None = "e1", **fields: object) -> dict[str, object]:
    plain: dict[str, object] = {
        "event_id": event_id,
        "user_id": "ann",
        "kind": "search",
        "text": "rain in spain",
        "occurred_at": NOW,
    }
    return {name: value for name, value in {**plain, **fields}.items() if value is not None}


def body(*events: object) -> bytes:
    return msgspec.json.encode({"events": events})
