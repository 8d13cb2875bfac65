"""The two routes over twins, by a real server: streams cannot be seen through an in-process transport."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException as StarletteHTTPException

from keenstream.stack.ports import free_port
from schemas.article import Article
from schemas.clients.memory_store import MemoryStore
from schemas.clients.vector_store import StoredArticle, signal_write
from schemas.codec import MATCHES
from schemas.config import Matches
from schemas.errors import KeenstreamError, Unavailable
from schemas.match import FreshMatch
from schemas.names import Topic
from schemas.profile import Signal, UserProfile
from schemas.queries import QueryList
from stream.api.fresh import FreshParts, add_fresh
from stream.api.fresh_feed import FreshFeed
from stream.api.http import on_keenstream_error, on_problem
from stream.api.profile_rows import ProfileRows
from stream.api.views import ReaderViews
from stream.profiles.record import ProfileRecord, decode_record, encode_record
from tests.stream.doubles import Record

NOW = 1_800_000_000_000
HOUR = 3_600_000
AXES = np.eye(384, dtype=np.float32)


class World:
    def __init__(self, **settings: Any) -> None:
        self.settings = Matches(**{"heartbeat_seconds": 0.05, "min_similarity": 0.5, **settings})
        self.feed, self.store = FreshFeed(self.settings), MemoryStore()
        self.views = ReaderViews(
            ProfileRows(), lambda data: decode_record(data).profile, on_list=lambda _: None, on_removed=self.feed.forget
        )
        self.views.ready = True
        self.url, self.offset = f"http://127.0.0.1:{free_port()}", 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[httpx.AsyncClient]:
        app = FastAPI(exception_handlers={StarletteHTTPException: on_problem, KeenstreamError: on_keenstream_error})
        router = APIRouter()
        parts = FreshParts(
            store=self.store, views=self.views, feed=self.feed, settings=self.settings, clock_ms=lambda: NOW
        )
        add_fresh(router, parts)
        app.include_router(router)
        port = int(self.url.rpartition(":")[2])
        self.server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, lifespan="off"))
        self.serving_task = asyncio.create_task(self.server._serve())
        try:
            async with httpx.AsyncClient(base_url=self.url, timeout=60.0) as client:
                while not self.server.started:
                    await asyncio.sleep(0.01)
                yield client
        finally:
            self.feed.close()
            self.server.should_exit = True
            await self.serving_task

    def know(self, user_id: str, *clicked: str) -> None:
        clicks = tuple(Signal(NOW, f"c-{name}", name, article_id=name) for name in clicked)
        profile = UserProfile(user_id, page=(Signal(NOW, "p", "page"),), click=clicks)
        value = encode_record(ProfileRecord(profile))
        self.views.apply([Record(topic=Topic.PROFILES_CHANGELOG, key=user_id.encode(), value=value)])

    def tell(self, user_id: str, *article_ids: str, expires_at: int = NOW + HOUR) -> None:
        for article_id in article_ids:
            match = FreshMatch(
                article_id=article_id,
                user_id=user_id,
                title='A "title"\nin two lines',
                url="u",
                query="rain",
                source="student",
                similarity=0.7,
                list_age_ms=5,
                published_at=NOW,
                matched_at=NOW,
                expires_at=expires_at,
            )
            self.offset += 1
            record = Record(
                topic=Topic.FRESH_MATCHES, offset=self.offset, key=user_id.encode(), value=MATCHES.encode(match)
            )
            self.feed.apply([record])

    async def ask(self, user_id: str, cosine: float) -> None:
        """A stored query at this cosine from the article `a`."""
        written = QueryList(
            user_id=user_id,
            queries=(),
            signals=(f"query of {user_id}",),
            source="signals",
            profile_fingerprint="f",
            model="m",
            model_version="1",
            prompt_version="p",
            generated_at=NOW - 2_000,
            expires_at=NOW + HOUR,
        )
        vector = cosine * AXES[0] + (1 - cosine**2) ** 0.5 * AXES[1]
        await self.store.write_user_queries([signal_write(written, vector[np.newaxis])])

    async def publish(self, article_id: str) -> None:
        article = Article(
            article_id=article_id, title="t", url="u", source="s", published_at=NOW, expires_at=NOW + HOUR
        )
        await self.store.upsert_articles([StoredArticle(article=article, embed_model="axes", embedding=AXES[0])])


class Reader:
    """A client of a stream."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()

    async def event(self) -> dict[str, str]:
        """The next event's fields; a comment is one with the name ''."""
        fields: dict[str, str] = {}
        while (line := await asyncio.wait_for(anext(self._lines), 60)) or not fields:
            name, _, value = line.partition(": ")
            fields[name] = value
        return fields

    async def articles(self, count: int) -> list[str]:
        found: list[str] = []
        while len(found) < count:
            fields = await self.event()
            if fields.get("event") == "match":
                found.append(json.loads(fields["data"])["article_id"])
        return found


@asynccontextmanager
async def listening(client: httpx.AsyncClient, user_id: str, last: str = "") -> AsyncIterator[Reader]:
    headers = {"Last-Event-ID": last} if last else {}
    async with client.stream("GET", f"/v1/users/{user_id}/fresh", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        reader = Reader(response)
        assert "retry" in await reader.event()
        yield reader


async def test_a_match_reaches_its_reader_and_nobody_else() -> None:
    world = World()
    world.know("ann")
    world.know("bob")
    world.tell("ann", "before")
    async with world.serving() as client, listening(client, "ann") as ann, listening(client, "bob") as bob:
        world.tell("ann", "a")
        world.tell("bob", "b")
        assert await ann.articles(1) == ["a"]
        assert await bob.articles(1) == ["b"]


async def test_an_event_holds_the_match_as_json_in_one_line_and_its_place() -> None:
    world = World()
    world.know("ann")
    async with world.serving() as client, listening(client, "ann") as ann:
        world.tell("ann", "a")
        while "id" not in (fields := await ann.event()):
            assert fields == {"": "ping"}
        assert json.loads(fields["data"])["title"] == 'A "title"\nin two lines'
        assert fields["id"] == "0-1"


async def test_a_client_that_comes_back_gets_what_it_has_not_seen() -> None:
    world = World(held_per_reader=3)
    world.know("ann")
    async with world.serving() as client:
        world.tell("ann", "a", "b", "c")
        async with listening(client, "ann", last="0-1") as ann:
            assert await ann.articles(2) == ["b", "c"]
        world.tell("ann", "d", "e", "f")
        async with listening(client, "ann", last="0-2") as ann:
            assert (await ann.event())["event"] == "missed"  # c is no longer held
            assert await ann.articles(3) == ["d", "e", "f"]
        async with listening(client, "ann", last="no place") as ann:
            world.tell("ann", "g")
            assert await ann.articles(1) == ["g"]


async def test_what_was_clicked_has_expired_or_cannot_be_read_is_not_told() -> None:
    world = World()
    world.know("ann", "clicked")
    async with world.serving() as client, listening(client, "ann") as ann:
        world.tell("ann", "clicked")
        world.tell("ann", "expired", expires_at=NOW)
        world.offset += 1
        world.feed.apply([Record(topic=Topic.FRESH_MATCHES, offset=world.offset, key=b"ann", value=b"{")])
        world.tell("ann", "a")
        assert await ann.articles(1) == ["a"]


async def test_an_erased_reader_is_told_nothing() -> None:
    world = World()
    world.know("ann")
    async with world.serving() as client, listening(client, "ann", last="0-0") as ann:
        world.views.apply([Record(topic=Topic.PROFILES_CHANGELOG, key=b"ann", value=None)])
        world.tell("ann", "a")
        assert await ann.event() == {"": "ping"}
        world.know("ann")
        world.tell("ann", "b")
        assert await ann.articles(1) == ["b"]


async def test_streams_are_limited_and_a_client_that_goes_frees_its_place() -> None:
    world = World(max_streams=1)
    async with world.serving() as client:
        async with listening(client, "ann"):
            refused = await client.get("/v1/users/bob/fresh")
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
            assert "max_streams" in refused.json()["detail"]
        while world.feed.is_full:
            await asyncio.sleep(0.01)
        async with listening(client, "bob"):
            assert world.feed.is_full


async def test_a_server_that_ends_ends_its_streams() -> None:
    world = World(heartbeat_seconds=60.0)
    async with world.serving() as client, listening(client, "ann") as ann:
        world.feed.close()
        world.server.should_exit = True
        with pytest.raises(StopAsyncIteration):
            await ann.event()
        await asyncio.wait_for(world.serving_task, 60)


async def test_a_slow_client_holds_no_memory_of_its_own() -> None:
    world = World(held_per_reader=5)
    world.know("ann")
    async with world.serving() as client, listening(client, "ann", last="0-0") as ann:
        for number in range(500):
            world.tell("ann", f"a{number}")
        found = await ann.articles(5)
        assert found == [f"a{number}" for number in range(495, 500)]
        with suppress(TimeoutError):
            assert (await asyncio.wait_for(ann.event(), 5)) == {"": "ping"}


async def test_readers_of_an_article_come_by_similarity_without_those_who_clicked_it() -> None:
    world = World()
    for user_id, cosine in {"near": 0.9, "nearer": 0.95, "clicked": 0.99, "far": 0.4}.items():
        await world.ask(user_id, cosine)
        world.know(user_id)
    world.know("clicked", "a")
    await world.publish("a")
    async with world.serving() as client:
        told = (await client.get("/v1/articles/a/readers")).json()
        assert [row["user_id"] for row in told["readers"]] == ["nearer", "near"]
        assert told["readers"][0]["query"] == "query of nearer"
        assert told["readers"][0]["similarity"] == pytest.approx(0.95, abs=1e-5)
        assert told["readers"][0]["list_age_seconds"] == 2.0
        first = (await client.get("/v1/articles/a/readers", params={"k": 1})).json()["readers"]
        assert [row["user_id"] for row in first] == ["nearer"]
        more = (await client.get("/v1/articles/a/readers", params={"min_similarity": 0.3})).json()["readers"]
        assert [row["user_id"] for row in more] == ["nearer", "near", "far"]


async def test_an_article_that_is_not_stored_is_said_to_be_unknown_and_an_absent_store_to_be_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    async with world.serving() as client:
        assert (await client.get("/v1/articles/never/there/readers")).status_code == 404
        assert (await client.get("/v1/articles/a/readers", params={"k": 101})).status_code == 422

        async def away(*_: object, **__: object) -> None:
            raise Unavailable("Milvus does not answer")

        monkeypatch.setattr(world.store, "article_vectors", away)
        assert (await client.get("/v1/articles/a/readers")).status_code == 503
