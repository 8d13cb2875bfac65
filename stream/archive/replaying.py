"""Archived events sent through the loop again. Profiles do not change: the events have their ids (design rule 1).

Each message says where it was archived from, so that the archive does not take it twice.
"""

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.archive import OFFSET, PARTITION, archive_files, read_archive_file, records
from schemas.codec import EVENTS, Codec
from schemas.event import Event
from schemas.names import Header, Topic
from stream.producer import Outgoing, Producer

BATCH = 2_000


class ReplayResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was sent, or would be."""

    first: date
    last: date
    files: int
    events: int
    sent: int


def events_to_replay(folder: Path, first: date, last: date) -> tuple[list[Path], int]:
    """The files of the days from `first` to `last` (inclusive), and how many events they hold."""
    files = archive_files(folder, Topic.USER_EVENTS, first, last)
    return files, sum(pq.read_metadata(path).num_rows for path in files)


async def replay_events(
    files: Sequence[Path],
    producer: Producer,
    codec: Codec[Event] = EVENTS,
    on_sent: Callable[[int], None] = lambda _: None,
) -> int:
    """Send the events of `files`, each file in the order of offsets; how many. May be stopped and begun again."""
    sent = 0
    for path in files:
        table = read_archive_file(path, Topic.USER_EVENTS)
        for start in range(0, table.num_rows, BATCH):
            messages = _messages(table.slice(start, BATCH), codec)
            await producer.send(messages)
            sent += len(messages)
            on_sent(len(messages))
    return sent


def _messages(table: pa.Table, codec: Codec[Event]) -> list[Outgoing]:
    origins = zip(table.column(PARTITION).to_pylist(), table.column(OFFSET).to_pylist(), strict=True)
    return [
        Outgoing(Topic.USER_EVENTS, event.user_id.encode(), codec.encode(event), (_origin(*origin),))
        for event, origin in zip(records(table, Topic.USER_EVENTS), origins, strict=True)
    ]


def _origin(partition: int, offset: int) -> tuple[str, bytes]:
    return Header.REPLAYED_FROM, f"{Topic.USER_EVENTS}:{partition}:{offset}".encode()
