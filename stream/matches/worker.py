"""The match worker: `keenstream worker matches`."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

from schemas.codecs import open_codecs
from schemas.config import Config
from schemas.names import MATCH_TABLE, App, Topic
from stream.clock import now_ms
from stream.matches.announcer import STAGE, Announcer
from stream.producer import KafkaProducer
from stream.retrying import until_done
from stream.topics import topics
from stream.transport import StateTable, WorkerSettings, batches, check_topics, create_app, run_worker

BATCH_RECORDS = 2_000
BATCH_SECONDS = 0.05
QUIET_SECONDS = 0.01  # a match goes on at once unless more are coming
FORGET_SECONDS = 60.0


def run(config: Config, data_folder: Path) -> int:
    """Announce until SIGINT or SIGTERM; the exit code. Raises UsageError when topics are not as they must be."""
    names = (Topic.MATCH_CANDIDATES, Topic.ERASURES, Topic.MATCHES_CHANGELOG, Topic.FRESH_MATCHES, Topic.DEAD_LETTERS)
    check_topics(config.kafka, topics(config, *names))
    codecs = open_codecs(config, writes=(Topic.FRESH_MATCHES,))
    settings = WorkerSettings(session_timeout_seconds=config.kafka.session_timeout_seconds)
    app = create_app(App.MATCHES, config.kafka, data_folder=data_folder, settings=settings)
    table = app.state_table(MATCH_TABLE, config.kafka.partitions)
    producer = KafkaProducer(config.kafka)
    announcer = Announcer(config.matches, table, producer, now_ms, codecs)

    @app.run_agent(Topic.MATCH_CANDIDATES, Topic.ERASURES)
    async def announce(stream: Any) -> None:
        async with producer:
            async for batch in batches(
                stream, max_records=BATCH_RECORDS, within_seconds=BATCH_SECONDS, quiet_seconds=QUIET_SECONDS
            ):
                await until_done(partial(announcer.process, batch.records), stage=STAGE)

    return run_worker(app, beside=partial(_forget, app, table, announcer))


async def _forget(app: Any, table: StateTable, announcer: Announcer) -> None:
    """Memories that are an hour old, of the partitions that this worker holds and has restored."""
    while True:
        await asyncio.sleep(FORGET_SECONDS)
        if not app.tables.actives_ready:
            continue
        held = {tp.partition for tp in app.consumer.assignment() if tp.topic == Topic.MATCH_CANDIDATES}
        for partition in held:
            await announcer.forget_old(partition, table.rows(partition))
