"""The profile worker: `keenstream worker profiles`."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

from schemas.codecs import open_codecs
from schemas.config import Config
from schemas.names import PROFILE_TABLE, App, Topic
from stream.clock import now_ms
from stream.producer import KafkaProducer
from stream.profiles.folder import STAGE, ProfileFolder
from stream.retrying import until_done
from stream.topics import topics
from stream.transport import StateTable, WorkerSettings, batches, check_topics, create_app, run_worker

QUIET_SECONDS = 0.02  # with nothing more to come for so long, a flush need not wait for its time
DUE_SECONDS = 0.5  # how often the readers are looked through whose list becomes due with time


def run(config: Config, data_folder: Path) -> int:
    """Fold until SIGINT or SIGTERM; the exit code. Raises UsageError when topics are not as they must be."""
    check_topics(
        config.kafka,
        topics(config, Topic.USER_EVENTS, Topic.ERASURES, Topic.PROFILES_CHANGELOG, Topic.QUERY_REQUESTS),
    )
    codecs = open_codecs(config, writes=(Topic.QUERY_REQUESTS,))
    settings = WorkerSettings(session_timeout_seconds=config.kafka.session_timeout_seconds)
    app = create_app(App.PROFILES, config.kafka, data_folder=data_folder, settings=settings)
    table = app.state_table(PROFILE_TABLE, config.kafka.partitions)
    producer = KafkaProducer(config.kafka)
    folder = ProfileFolder(config, table, producer, now_ms, codecs)
    limits = config.profiles

    @app.run_agent(Topic.USER_EVENTS, Topic.ERASURES)
    async def fold(stream: Any) -> None:
        async with producer:
            flushes = batches(
                stream,
                max_records=limits.flush_records,
                within_seconds=limits.flush_seconds,
                quiet_seconds=QUIET_SECONDS,
            )
            async for batch in flushes:
                await until_done(partial(folder.process, batch.records), stage=STAGE)

    return run_worker(app, beside=partial(_refresh, app, table, folder))


async def _refresh(app: Any, table: StateTable, folder: ProfileFolder) -> None:
    """Requests that become due by time alone, for the partitions that this worker holds and has restored."""
    known: set[int] = set()
    while True:
        await asyncio.sleep(DUE_SECONDS)
        if not app.tables.actives_ready:
            known.clear()
            continue
        held = {tp.partition for tp in app.consumer.assignment() if tp.topic == Topic.USER_EVENTS}
        for partition in held - known:
            folder.recover(partition, table.rows(partition))
        known = held
        await until_done(partial(folder.refresh_due, held.__contains__), stage="refresh")
