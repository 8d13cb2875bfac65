"""`keenstream worker api` as a process on the real Kafka and Milvus, without Triton."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bench._worker import Worker, worker
from keenstream.stack.ports import free_port
from schemas.article import Article
from schemas.clients.milvus import MilvusStore
from schemas.clients.vector_store import StoredArticle, signal_write, student_write
from schemas.codec import LISTS
from schemas.config import Api, Config, Kafka, Milvus, Triton
from schemas.names import Topic
from schemas.queries import QueryList
from stream.producer import KafkaProducer, Outgoing
from stream.topics import all_topics
from stream.transport import create_topics

pytestmark = pytest.mark.stack
READER = "api-worker-reader"
NOW = time.time_ns() // 1_000_000
DAY = 86_400_000
AXES = np.eye(384, dtype=np.float32)[300:]  # far from what other tests store


@pytest.fixture(scope="module")
def config(kafka: str, milvus: str) -> Config:
    config = Config(
        kafka=Kafka(bootstrap=kafka, session_timeout_seconds=6.0),
        milvus=Milvus(uri=milvus),
        triton=Triton(grpc_address="127.0.0.1:1", embedder_deadline_seconds=0.5),
        api=Api(port=free_port()),
    )
    create_topics(kafka, all_topics(config))
    return config


@pytest.fixture
async def store(config: Config) -> AsyncIterator[MilvusStore]:
    store = MilvusStore(config.milvus)
    await store.prepare()
    await store.upsert_articles([stored(f"api-worker-{n}", n) for n in range(3)])
    yield store
    await store.delete_articles([f"api-worker-{n}" for n in range(3)])
    await store.delete_user(READER)
    await store.close()


@pytest.fixture(scope="module")
def api(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("api")
    with worker("profiles", config, folder), worker("api", config, folder) as api:
        yield api


@pytest.fixture
def client(config: Config, api: Worker) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{config.api.port}", timeout=10) as client:
        until(lambda: answered(client, "/readyz").status_code == 200)
        yield client


def stored(article_id: str, axis: int) -> StoredArticle:
    article = Article(
        article_id=article_id,
        title=f"{article_id} title",
        url=f"https://news.example/{article_id}",
        source="wire",
        published_at=NOW,
        expires_at=NOW + DAY,
    )
    return StoredArticle(article=article, embed_model="axes", embedding=AXES[axis])


async def write_list(store: MilvusStore, config: Config, axis: int, generated_at: int) -> None:
    """What the workers do: rows first, then the log."""
    written = QueryList(
        user_id=READER,
        queries=("asked",),
        signals=("own",),
        source="student",
        profile_fingerprint="f",
        model="m",
        model_version="1",
        prompt_version="p",
        generated_at=generated_at,
        expires_at=NOW + DAY,
    )
    vectors = AXES[axis : axis + 1]
    await store.write_user_queries([student_write(written, vectors), signal_write(written, vectors)])
    async with KafkaProducer(config.kafka.bootstrap) as producer:
        await producer.send([Outgoing(Topic.QUERY_LISTS, READER.encode(), LISTS.encode(written))])


def answered(client: httpx.Client, path: str, **params: Any) -> httpx.Response:
    try:
        return client.get(path, params=params)
    except httpx.TransportError:
        return httpx.Response(599)


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "it did not come true"
        time.sleep(0.05)


def best(client: httpx.Client) -> str:
    told = answered(client, f"/v1/users/{READER}/candidates", k=1).json()
    return str(told["candidates"][0]["article_id"]) if told.get("candidates") else ""


async def test_a_new_list_changes_the_candidates(store: MilvusStore, config: Config, client: httpx.Client) -> None:
    await write_list(store, config, 0, NOW)
    until(lambda: best(client) == "api-worker-0")
    await write_list(store, config, 1, NOW + 1)
    until(lambda: best(client) == "api-worker-1")


async def test_posted_events_become_a_profile(client: httpx.Client) -> None:
    now_ms = time.time_ns() // 1_000_000
    events = [
        {"event_id": f"w{n}", "user_id": "api-poster", "kind": "search", "text": f"rain {n}", "occurred_at": now_ms - n}
        for n in range(3)
    ]
    for _ in range(2):  # sending again is harmless
        assert client.post("/v1/events", json={"events": events}).json()["accepted"] == 3

    def texts() -> list[str]:
        told = answered(client, "/v1/users/api-poster/profile")
        return [signal["text"] for signal in told.json()["search"]] if told.status_code == 200 else []

    until(lambda: texts() == ["rain 2", "rain 1", "rain 0"])


def test_without_triton_the_api_is_degraded_and_search_is_unavailable(client: httpx.Client) -> None:
    ready = answered(client, "/readyz").json()
    assert ready["status"] == "degraded"
    response = client.post("/v1/search", json={"query": "rain"})
    assert response.status_code == 503
    assert "retry-after" in response.headers


def test_its_log_holds_no_reader(client: httpx.Client, api: Worker) -> None:
    answered(client, f"/v1/users/{READER}/candidates")
    answered(client, f"/v1/users/{READER}/queries")
    assert READER not in api.log.read_text()


def test_it_ends_cleanly(config: Config, tmp_path: Path) -> None:
    own = Config(kafka=config.kafka, milvus=config.milvus, triton=config.triton, api=Api(port=free_port()))
    with worker("api", own, tmp_path) as api, httpx.Client(base_url=f"http://127.0.0.1:{own.api.port}") as client:
        until(lambda: answered(client, "/healthz").status_code == 200)
        assert api.stop() == 0


def test_it_refuses_to_listen_for_others_without_a_key(config: Config, tmp_path: Path) -> None:
    own = Config(kafka=config.kafka, milvus=config.milvus, api=Api(host="0.0.0.0", port=free_port()))
    with worker("api", own, tmp_path) as api:
        assert api.process.wait(90) == 2
        assert "keenstream api-key create" in api.log.read_text()
