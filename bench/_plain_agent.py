"""The rival of `bench fold`: the same rules in an ordinary Faust agent with an ordinary Faust table, event by event.

`python -m bench._plain_agent BOOTSTRAP DATA_FOLDER METRICS_PORT`
"""

import sys
import time
from typing import Any

import faust

from schemas.cleaning import Dropped, clean_event
from schemas.codec import EVENTS
from schemas.config import Config
from schemas.names import Topic
from schemas.profile import UserProfile
from stream import monitoring
from stream.profiles.record import ProfileRecord, decode_record, encode_record
from stream.profiles.refresh import fold_record

APP = "plain-profiles"


def create_plain_app(bootstrap: str, folder: str) -> Any:
    """The app as a Faust tutorial would write it."""
    config = Config()
    app = faust.App(
        APP,
        broker=f"kafka://{bootstrap}",
        datadir=folder,
        store="memory://",
        web_enabled=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
    )
    source = app.topic(Topic.USER_EVENTS, value_type=bytes, key_type=bytes, value_serializer="raw")
    table = app.Table("profiles", partitions=config.kafka.partitions, key_type=bytes, value_type=bytes)

    @app.agent(source)  # type: ignore[untyped-decorator]  # faust is untyped here
    async def fold(stream: Any) -> None:
        async for message in stream.events():
            event = clean_event(EVENTS.decode(message.value), languages=config.profiles.languages)
            if isinstance(event, Dropped):
                monitoring.EVENTS_DROPPED.labels(event.reason).inc()
                continue
            stored = table.get(message.key)
            before = decode_record(stored) if stored else ProfileRecord(UserProfile(event.user_id))
            after = fold_record(
                before,
                event,
                settings=config.refresh,
                signals_per_domain=config.profiles.signals_per_domain,
                now_ms=time.time_ns() // 1_000_000,
                accepted_at=int(message.message.timestamp * 1000),
            )
            if after is before:
                monitoring.EVENTS_UNCHANGED.inc()
                continue
            table[message.key] = encode_record(after)
            monitoring.EVENTS_FOLDED.inc()

    return app


if __name__ == "__main__":
    bootstrap, folder, port = sys.argv[1:]
    monitoring.serve_metrics(int(port))
    faust.Worker(create_plain_app(bootstrap, folder), loglevel="WARNING").execute_from_commandline()
