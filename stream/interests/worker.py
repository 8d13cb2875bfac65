"""The workers over query requests: `keenstream worker signals` and `keenstream worker interests`."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from schemas.clients.breaker import Breaker, GuardedStudent
from schemas.clients.milvus import MilvusStore
from schemas.clients.models import Student
from schemas.clients.prompt_probe import prompt_of_served
from schemas.clients.triton import TritonCleaner, TritonEmbedder, TritonStudent
from schemas.codecs import Codecs, open_codecs
from schemas.config import Config
from schemas.errors import PermanentError, RetryableError
from schemas.names import App, Topic
from schemas.prompt import EXAMPLES, PromptVersion
from stream.clock import now_ms
from stream.dead_letters import SourceRecord
from stream.interests import lists, signals
from stream.interests.cleaning import SignalCleaner
from stream.interests.lists import ListWriter
from stream.interests.signals import SignalWriter
from stream.producer import KafkaProducer
from stream.retrying import AWAY_SECONDS, until_done
from stream.topics import topics
from stream.transport import WorkerSettings, batches, check_topics, create_app, run_worker

Process = Callable[[Sequence[SourceRecord]], Awaitable[None]]
Open = Callable[[Config, Codecs, AsyncExitStack], Awaitable[Process]]


def run_signals(config: Config, data_folder: Path) -> int:
    """Store the signals of each request until SIGINT or SIGTERM; the exit code."""
    return _run(config, App.SIGNALS, signals.STAGE, _open_signals, data_folder)


def run_interests(config: Config, data_folder: Path) -> int:
    """Write the list of each request until SIGINT or SIGTERM; the exit code."""
    return _run(config, App.INTERESTS, lists.STAGE, _open_lists, data_folder)


def _run(config: Config, app_id: str, stage: str, open_parts: Open, data_folder: Path) -> int:
    check_topics(config.kafka, topics(config, Topic.QUERY_REQUESTS, Topic.QUERY_LISTS))
    codecs = open_codecs(config, writes=(Topic.QUERY_LISTS,))
    settings = WorkerSettings(session_timeout_seconds=config.kafka.session_timeout_seconds, stall_seconds=AWAY_SECONDS)
    app = create_app(app_id, config.kafka, data_folder=data_folder, settings=settings)
    limits = config.interests

    @app.run_agent(Topic.QUERY_REQUESTS)
    async def answer(stream: Any) -> None:
        async with AsyncExitStack() as parts:
            process = await open_parts(config, codecs, parts)
            async for batch in batches(stream, max_records=limits.batch_records, within_seconds=limits.batch_seconds):
                await until_done(partial(process, batch.records), stage=stage)

    return run_worker(app)


async def _open_signals(config: Config, codecs: Codecs, parts: AsyncExitStack) -> Process:
    store, embedder, producer = await _open_sinks(config, parts)
    cleaner = _open_cleaner(config, signals.STAGE, parts)
    return SignalWriter(config.interests, embedder, store, producer, now_ms, codecs, cleaner).process


async def _open_lists(config: Config, codecs: Codecs, parts: AsyncExitStack) -> Process:
    store, embedder, producer = await _open_sinks(config, parts)
    student = TritonStudent(config.triton, deadline_seconds=config.triton.student_deadline_seconds)
    parts.push_async_callback(student.close)
    settings = config.interests
    breaker = Breaker(failures=settings.breaker_failures, reset_seconds=settings.breaker_reset_seconds)
    guarded = GuardedStudent(student, breaker)
    cleaner = _open_cleaner(config, lists.STAGE, parts)
    prompt = await first_prompt(student)
    return ListWriter(settings, guarded, embedder, store, producer, now_ms, prompt, codecs, cleaner).process


async def first_prompt(student: Student) -> PromptVersion:
    """What the served model reads, so that no batch is asked for twice; EXAMPLES where it does not say, which costs the
    first batch a second question."""
    try:
        return await prompt_of_served(student)
    except (PermanentError, RetryableError):
        return EXAMPLES


def _open_cleaner(config: Config, stage: str, parts: AsyncExitStack) -> SignalCleaner | None:
    settings = config.interests
    if not settings.cleaner:
        return None
    cleaner = TritonCleaner(config.triton, deadline_seconds=config.triton.cleaner_deadline_seconds)
    parts.push_async_callback(cleaner.close)
    breaker = Breaker(failures=settings.breaker_failures, reset_seconds=settings.cleaner_retry_seconds)
    return SignalCleaner(settings, cleaner, breaker, stage)


async def _open_sinks(config: Config, parts: AsyncExitStack) -> tuple[MilvusStore, TritonEmbedder, KafkaProducer]:
    """Clients are made inside the worker's loop; each connects when it is first used."""
    store = MilvusStore(config.milvus)
    parts.push_async_callback(store.close)
    embedder = TritonEmbedder(config.triton, deadline_seconds=config.triton.embedder_deadline_seconds)
    parts.push_async_callback(embedder.close)
    producer = KafkaProducer(config.kafka)
    parts.push_async_callback(producer.stop)
    return store, embedder, producer
