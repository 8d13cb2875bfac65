"""The API worker: `keenstream worker api`."""

import asyncio
import gc
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from logging import getLogger
from pathlib import Path

import uvicorn
import uvloop

from schemas.clients.milvus import MilvusStore
from schemas.clients.triton import TritonEmbedder
from schemas.codecs import Codecs, open_codecs
from schemas.config import Api, Config
from schemas.errors import UsageError
from schemas.names import Topic
from stream.api.access import check_exposure
from stream.api.answering import Answering
from stream.api.application import Parts, create_api
from stream.api.exposures import ExposureLog
from stream.api.fresh_feed import FreshFeed, FreshFollower
from stream.api.limits import bounded_protocol
from stream.api.profile_rows import ProfileRows
from stream.api.query_cache import QueryCache
from stream.api.recommender import Recommender
from stream.api.request_memory import RequestMemory
from stream.api.views import ReaderViews, ViewFollower
from stream.clock import now_ms
from stream.kafka_access import aiokafka_options
from stream.producer import KafkaProducer
from stream.profiles.record import decode_record

_log = getLogger(__name__)
Background = tuple[Coroutine[None, None, None], ...]

WRITES = (Topic.USER_EVENTS, Topic.EXPOSURES, Topic.OUTCOMES, Topic.ERASURES)
SEND_SECONDS = 5.0  # a producer that waits longer than this for Kafka had better send again
SEARCH_SECONDS = 5.0  # for the model, in free-text search
SHUTDOWN_SECONDS = 5


def run(config: Config, data_folder: Path) -> int:
    """Serve until SIGINT or SIGTERM; the exit code. Raises UsageError when it may not or cannot listen."""
    check_exposure(config.api)
    aiokafka_options(config.kafka)  # raises when they are wrong: exit code 2 before anything is opened
    codecs = open_codecs(config, WRITES)
    with listen(config.api) as listener:
        return uvloop.run(_serve(config, codecs, data_folder, listener))


def listen(settings: Api) -> socket.socket:
    try:
        return socket.create_server((settings.host, settings.port), backlog=1024)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror}): end what holds the port, "
            "or set KEENSTREAM_API_PORT to another one"
        ) from error


async def _serve(config: Config, codecs: Codecs, data_folder: Path, listener: socket.socket) -> int:
    async with AsyncExitStack() as opened:
        parts, background = _open_parts(config, codecs, data_folder, opened)
        app = create_api(config, parts)
        server = _Server(
            uvicorn.Config(
                app,
                access_log=False,  # its lines hold user ids
                log_config=None,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
                server_header=False,
                http=bounded_protocol(config.api.header_seconds),
                limit_concurrency=config.api.max_connections,
                proxy_headers=False,  # anyone could name another address and so take another's share
            ),
            on_end=parts.fresh.close,
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, server.end)
        tasks = [asyncio.create_task(work) for work in background]
        for task in tasks:
            task.add_done_callback(lambda done: _stop_when_failed(done, server))
        host, port = listener.getsockname()[:2]
        _log.info("the API listens on http://%s:%d, its documentation is at /docs", host, port)
        gc.freeze()  # what is there now stays: full collections need not look at it
        await server.serve(sockets=[listener])
        failed = any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return 1 if failed else 0


class _Server(uvicorn.Server):
    """uvicorn raises the signal again that ended it, so that a clean end looks like a kill; ours is exit code 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def __init__(self, config: uvicorn.Config, on_end: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_end = on_end

    def end(self) -> None:
        self._on_end()  # open streams would be waited for
        self.should_exit = True


def _stop_when_failed(task: asyncio.Task[None], server: _Server) -> None:
    """Views that stopped would serve ever older profiles: better to end and be started again."""
    if not task.cancelled() and (error := task.exception()):
        _log.error("a background task ended, so the API ends", exc_info=error)
        server.end()


def _open_parts(config: Config, codecs: Codecs, data_folder: Path, opened: AsyncExitStack) -> tuple[Parts, Background]:
    store = MilvusStore(config.milvus)
    opened.push_async_callback(store.close)
    embedder = TritonEmbedder(
        config.triton, deadline_seconds=min(SEARCH_SECONDS, config.triton.embedder_deadline_seconds)
    )
    opened.push_async_callback(embedder.close)
    producer = KafkaProducer(config.kafka, timeout_seconds=SEND_SECONDS)
    opened.push_async_callback(producer.stop)
    rows = ProfileRows(data_folder / "profiles.sqlite")
    opened.callback(rows.close)
    cache = QueryCache(store, readers=config.api.vector_cache_readers, monotonic=time.monotonic)
    recommender = Recommender(config.api, store, cache, time.monotonic)
    exposures = ExposureLog(producer, time.monotonic, codec=codecs.exposures)
    opened.push_async_callback(exposures.drain)
    requests = RequestMemory()
    answering = Answering(recommender, config.experiments, exposures, requests, now_ms)
    fresh = FreshFeed(config.matches)
    views = ReaderViews(
        rows,
        lambda data: decode_record(data).profile,
        on_list=cache.note,
        on_removed=lambda user_id: _forget(user_id, answering, fresh),
        lists=codecs.lists,
    )
    follower = ViewFollower(config.kafka, views)
    parts = Parts(
        store=store,
        views=views,
        recommender=recommender,
        answering=answering,
        exposures=exposures,
        requests=requests,
        producer=producer,
        embedder=embedder,
        check_kafka=follower.check,
        clock_ms=now_ms,
        codecs=codecs,
        fresh=fresh,
    )
    matches = FreshFollower(config.kafka, fresh).follow(now_ms() - int(config.matches.held_seconds * 1000))
    reading = (follower.follow(), matches, cache.read_ahead(now_ms), recommender.keep_newest(now_ms))
    return parts, (*reading, exposures.run())


def _forget(user_id: str, answering: Answering, fresh: FreshFeed) -> None:
    answering.forget(user_id)
    fresh.forget(user_id)
