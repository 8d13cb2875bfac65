"""The fold over Avro records: what waits, what is dropped, what becomes a dead letter."""

from collections.abc import Iterator

import msgspec
import pytest
from prometheus_client import REGISTRY

from schemas.avro.published import published
from schemas.codec import EVENTS
from schemas.codecs import Codecs, open_codecs
from schemas.config import Config, Registry
from schemas.errors import RetryableError
from schemas.event import Event
from schemas.names import Topic
from stream.archive.columns import Columns, LeftOut
from stream.producer import MemoryProducer
from stream.profiles.folder import ProfileFolder
from stream.retrying import until_done
from tests.schemas.local_registry import LocalRegistry, local_registry
from tests.stream.archive.consumed import NOON, Consumed
from tests.stream.doubles import MemoryTable, Record

NOW = 1_700_000_000_000
EVENT = Event(event_id="1", user_id="u1", kind="search", text="heat pumps", occurred_at=NOW)
PINNED = open_codecs(Config(registry=Registry(format="avro", ids=("Event/1=1", "QueryRequest/1=2"))))


def dropped() -> float:
    return REGISTRY.get_sample_value("keenstream_events_dropped_total", {"reason": "no_consent"}) or 0.0


def record(value: bytes, key: bytes = b"u1") -> Record:
    return Record(key=key, value=value, timestamp_ms=NOW)


def folder(table: MemoryTable, producer: MemoryProducer, codecs: Codecs = PINNED) -> ProfileFolder:
    return ProfileFolder(Config(), table, producer, lambda: NOW, codecs)


@pytest.fixture(scope="module")
def local() -> Iterator[LocalRegistry]:
    with local_registry() as started:
        yield started


def refused() -> dict[str, bytes]:
    """Events without consent; broken ones would be dead letters, which are kept for a month."""
    replace = msgspec.structs.replace
    return {
        "sound": PINNED.events.encode(replace(EVENT, consent=False)),
        "broken": PINNED.events.encode(replace(EVENT, consent=False, text="")),
    }


@pytest.mark.parametrize("value", refused().values(), ids=refused().keys())
@pytest.mark.parametrize("key", [b"u1", b"someone else"])
async def test_an_avro_event_without_consent_is_stored_nowhere(value: bytes, key: bytes) -> None:
    table, producer, before = MemoryTable(), MemoryProducer(), dropped()
    await folder(table, producer).process([record(value, key)])
    assert (table.rows, producer.sent, dropped() - before) == ({}, [], 1)
    chunk = Columns(Topic.USER_EVENTS, PINNED.events).build([Consumed(1, value)], NOON)
    assert chunk.left_out == LeftOut(without_consent=1) and chunk.refused == ()


async def test_both_formats_in_one_batch_are_one_profile() -> None:
    tables = MemoryTable(), MemoryTable()
    events = [msgspec.structs.replace(EVENT, event_id=str(n), text=f"story {n}") for n in range(9)]
    await folder(tables[0], MemoryProducer()).process([record(EVENTS.encode(event)) for event in events])
    mixed = [record((EVENTS, PINNED.events)[number % 2].encode(event)) for number, event in enumerate(events)]
    await folder(tables[1], MemoryProducer()).process(mixed)
    assert tables[0].rows == tables[1].rows


async def test_a_batch_waits_for_the_registry_whole_and_counts_once(local: LocalRegistry) -> None:
    config = Config(registry=Registry(url=local.url, format="json"))
    local.add("acme", published("Event")[-1].compact)
    local.fault = 503
    value = b"\x00" + (100).to_bytes(4, "big") + PINNED.events.encode(EVENT)[5:]
    refusal = EVENTS.encode(msgspec.structs.replace(EVENT, consent=False))
    table, producer, before = MemoryTable(), MemoryProducer(), dropped()
    waiting = folder(table, producer, open_codecs(config))

    async def attempt() -> None:
        try:
            await waiting.process([record(refusal), record(value)])
        except RetryableError:
            assert not table.rows and not producer.sent
            local.fault = None
            raise

    await until_done(attempt, stage="test", max_wait_seconds=0.1)
    assert list(table.rows) == [b"u1"]
    assert dropped() - before == 1
