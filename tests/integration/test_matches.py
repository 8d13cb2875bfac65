"""The reverse path on the real parts: an article appears, and the reader who waits for it is told."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from bench._worker import Worker, worker
from bench.freshness import STORIES, SUBJECTS
from keenstream.stack.kafka import kafka_server
from keenstream.stack.ports import free_port
from schemas.article import Article
from schemas.clients.milvus import MilvusStore
from schemas.clients.triton import TritonEmbedder
from schemas.clients.vector_store import signal_write
from schemas.codec import ARTICLES, ERASURES, MATCHES
from schemas.config import Api, Config, Kafka, Matches, Milvus, Triton
from schemas.erasure import Erasure
from schemas.names import App, Topic
from schemas.profile import Signal, UserProfile
from schemas.queries import QueryList
from stream.clock import now_ms
from stream.producer import KafkaProducer, Outgoing
from stream.profiles.record import ProfileRecord, encode_record
from stream.topic_reader import read_topic
from stream.topics import all_topics
from stream.transport import create_topics
from tests.integration.processes import members, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.asyncio(loop_scope="module")]
DAY_MS = 86_400_000
TITLES = [story.format(subject) for subject in SUBJECTS for story in STORIES]  # 48 stories of their own


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, milvus: str, triton: str) -> Iterator[Config]:
    """A broker of its own, so that the names of topics and groups are the real ones."""
    with kafka_server(tmp_path_factory.mktemp("kafka")) as server:
        config = Config(
            kafka=Kafka(bootstrap=server.bootstrap, session_timeout_seconds=6.0),
            milvus=Milvus(uri=milvus),
            triton=Triton(grpc_address=triton),
            matches=Matches(min_similarity=0.6, heartbeat_seconds=1.0),
            api=Api(port=free_port()),
        )
        create_topics(server.bootstrap, all_topics(config))
        yield config


class Loop:
    """What a test does to the running parts, and what comes of it."""

    def __init__(self, config: Config, folder: Path, stack: ExitStack) -> None:
        self.config, self.folder, self._stack = config, folder, stack
        self.store, self.workers = MilvusStore(config.milvus), dict[str, Worker]()
        self.sent: list[str] = []
        self.readers: list[str] = []

    def start(self, *names: str) -> None:
        for name in names:
            self.workers[name] = self._stack.enter_context(worker(name, self.config, self.folder))

    async def wait_by(self, user_id: str, text: str) -> None:
        """A reader with a profile, and one stored query."""
        embedder = TritonEmbedder(self.config.triton)
        vectors = await embedder.embed([text])
        await embedder.close()
        now = now_ms()
        written = QueryList(
            user_id=user_id,
            queries=(),
            signals=(text[:80],),
            source="signals",
            profile_fingerprint="f",
            model="m",
            model_version="1",
            prompt_version="p",
            generated_at=now,
            expires_at=now + DAY_MS,
        )
        await self.store.write_user_queries([signal_write(written, vectors)])
        self.readers.append(user_id)
        profile = UserProfile(user_id, search=(Signal(now, f"s-{user_id}", text[:80]),))
        await self.send(Outgoing(Topic.PROFILES_CHANGELOG, user_id.encode(), encode_record(ProfileRecord(profile))))

    async def publish(self, **titles: str) -> None:
        rows = [
            Article(article_id=name, title=title, url="https://news.example", source="wire", published_at=now_ms())
            for name, title in titles.items()
        ]
        await self.send(*(Outgoing(Topic.ARTICLES, row.article_id.encode(), ARTICLES.encode(row)) for row in rows))
        self.sent += titles

    async def send(self, *messages: Outgoing) -> None:
        async with KafkaProducer(self.config.kafka) as producer:
            await producer.send(messages)

    def told(self) -> Counter[tuple[str, str]]:
        """(reader, article) of every match on the topic."""
        matches = [MATCHES.decode(record.value) for record in read_topic(self.config.kafka, Topic.FRESH_MATCHES)]
        return Counter((match.user_id, match.article_id) for match in matches)

    async def until_told(self, expected: Sequence[tuple[str, str]]) -> None:
        await asyncio.to_thread(
            wait_for, lambda: set(expected) <= set(self.told()), "matches", *self.workers.values(), every=0.3
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def loop(config: Config, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Loop]:
    with ExitStack() as stack:
        loop = Loop(config, tmp_path_factory.mktemp("workers"), stack)
        await loop.store.prepare()
        loop.start("articles", "matches", "api")
        for group in (App.ARTICLES, App.MATCHES):
            await asyncio.to_thread(wait_for, lambda group=group: members(config, group) == 1, group)  # type: ignore[misc]
        yield loop
        await loop.store.delete_articles(loop.sent)
        for user_id in loop.readers:
            await loop.store.delete_user(user_id)
        await loop.store.close()


async def test_a_new_article_reaches_the_reader_who_waits_for_it_as_an_event(loop: Loop) -> None:
    await loop.wait_by("m-ann", "volcano erupts on the island")
    await loop.wait_by("m-bob", "chess championship results")
    address = f"http://127.0.0.1:{loop.config.api.port}"
    await asyncio.to_thread(wait_for, lambda: _profile_known(address, "m-ann"), "the API", loop.workers["api"])
    async with httpx.AsyncClient(base_url=address, timeout=60.0) as client:
        async with client.stream("GET", "/v1/users/m-ann/fresh") as response:
            lines = response.aiter_lines()
            assert (await anext(lines)).startswith("retry")
            await loop.publish(**{"m-volcano": "Volcano on the island erupts", "m-other": "Bakers strike over flour"})
            fields: dict[str, str] = {}
            while "id" not in fields:
                name, _, value = (await asyncio.wait_for(anext(lines), 60)).partition(": ")
                fields[name] = value
        told = json.loads(fields["data"])
        assert (fields["event"], told["article_id"], told["user_id"]) == ("match", "m-volcano", "m-ann")
        assert told["query"] == "volcano erupts on the island"
        assert told["similarity"] > 0.6
        await asyncio.to_thread(wait_for, lambda: _readers(address, "m-volcano") == ["m-ann"], "the readers")
    assert not [pair for pair in loop.told() if pair[0] == "m-bob"]


async def test_an_article_sent_again_is_not_announced_again_not_even_by_new_workers(loop: Loop) -> None:
    await loop.wait_by("m-cid", "tram line through the harbour")
    await loop.publish(**{"m-tram": "Tram line through the harbour opens"})
    await loop.until_told([("m-cid", "m-tram")])
    for name in ("articles", "matches"):
        loop.workers[name].kill()
    loop.start("articles", "matches")
    await loop.publish(**{"m-tram": "Tram line through the harbour opens"})
    await loop.publish(**{"m-copy": "TRAM LINE through the harbour opens!"})  # the same story
    await loop.wait_by("m-dora", "bees in the botanical garden")
    await loop.publish(**{"m-bees": "Bees return to the botanical garden"})
    await loop.until_told([("m-dora", "m-bees")])
    assert {pair: count for pair, count in loop.told().items() if pair[0] == "m-cid"} == {("m-cid", "m-tram"): 1}


async def test_a_reader_is_told_of_so_many_articles_in_an_hour_and_of_none_once_erased(loop: Loop) -> None:
    await loop.wait_by("m-eve", TITLES[0])
    bound = loop.config.matches.per_reader_hour
    await loop.publish(**{f"m-eve-{n}": f"{TITLES[0]}, day {n} of {n * 7919}" for n in range(3 * bound)})
    await asyncio.to_thread(
        wait_for,
        lambda: loop.workers["matches"].metric("keenstream_matches_total", outcome="hourly bound") > 0,
        "bound",
    )
    assert sum(pair[0] == "m-eve" for pair in loop.told()) == bound
    await loop.wait_by("m-fay", TITLES[1])
    gone = Erasure(user_id="m-fay", erased_before=now_ms(), requested_at=now_ms())
    await loop.send(Outgoing(Topic.ERASURES, b"m-fay", ERASURES.encode(gone)))
    await asyncio.sleep(1.0)  # the two topics have no order between them
    await loop.publish(**{"m-fay-1": TITLES[1]})  # the list has not been deleted yet
    await asyncio.to_thread(
        wait_for, lambda: loop.workers["matches"].metric("keenstream_matches_total", outcome="erased") > 0, "erased"
    )
    assert not [pair for pair in loop.told() if pair[0] == "m-fay"]


@pytest.mark.fault
async def test_workers_that_are_killed_lose_no_match(loop: Loop) -> None:
    waiting = {f"m-k{number}": title for number, title in enumerate(TITLES[6:30])}
    for user_id, title in waiting.items():
        await loop.wait_by(user_id, title)
    for at, (name, title) in enumerate(waiting.items()):
        await loop.publish(**{f"{name}-article": title})
        if at % 8 == 4:
            killed = ("articles", "matches")[at // 8 % 2]
            loop.workers[killed].kill()
            loop.start(killed)
    await loop.until_told([(user_id, f"{user_id}-article") for user_id in waiting])


def _profile_known(address: str, user_id: str) -> bool:
    try:
        return httpx.get(f"{address}/v1/users/{user_id}/profile", timeout=10.0).status_code == 200
    except httpx.TransportError:
        return False


def _readers(address: str, article_id: str) -> list[str]:
    answer = httpx.get(f"{address}/v1/articles/{article_id}/readers", timeout=10.0)
    return [row["user_id"] for row in answer.json()["readers"]] if answer.status_code == 200 else []
