import pytest

from schemas.codec import EVENTS, REQUESTS
from schemas.config import Config, Refresh
from schemas.errors import Unavailable
from schemas.event import Event, Kind
from schemas.names import Topic
from schemas.profile import UserProfile, fingerprint, fold_event
from stream.dead_letters import read_dead_letter
from stream.producer import MemoryProducer
from stream.profiles.folder import ProfileFolder, RowsNotStored
from stream.profiles.record import decode_record
from tests.stream.doubles import MemoryTable, Record

NOW = 1_700_000_000_000
CONFIG = Config(refresh=Refresh(cold_signals=1, threshold=4.0, interval_seconds=30.0, pending_seconds=600.0))


class World:
    def __init__(self) -> None:
        self.now = NOW
        self.table = MemoryTable()
        self.producer = MemoryProducer()
        self.folder = ProfileFolder(CONFIG, self.table, self.producer, lambda: self.now)

    def sent(self, topic: str) -> list[bytes]:
        return [message.value or b"" for message in self.producer.sent if message.topic == topic]


@pytest.fixture
def world() -> World:
    return World()


def event(number: int, text: str = "heat pumps", kind: Kind = "search", user: str = "u1") -> Event:
    return Event(event_id=str(number), user_id=user, kind=kind, text=text, occurred_at=NOW - 1_000 + number)


def record(source: Event, offset: int = 0) -> Record:
    return Record(key=source.user_id.encode(), value=EVENTS.encode(source), offset=offset, timestamp_ms=NOW)


async def test_the_online_profile_is_the_offline_fold(world: World) -> None:
    history = [event(n, f"story {n} words") for n in range(8)]
    await world.folder.process([record(e) for e in (*history[4:], *history[:4], *history)])
    offline = UserProfile("u1")
    for e in history:
        offline = fold_event(offline, e, signals_per_domain=CONFIG.profiles.signals_per_domain)
    assert decode_record(world.table.rows[b"u1"]).profile == offline


async def test_a_touched_profile_is_written_once_for_each_batch(world: World) -> None:
    await world.folder.process([record(event(n, f"story {n}")) for n in range(20)])
    assert world.table.writes == 1


async def test_a_due_reader_is_asked_for_with_the_profile_as_it_is(world: World) -> None:
    await world.folder.process([record(event(1))])
    (request,) = map(REQUESTS.decode, world.sent(Topic.QUERY_REQUESTS))
    assert request.profile == decode_record(world.table.rows[b"u1"]).profile
    assert request.profile_fingerprint == fingerprint(request.profile)
    assert (request.requested_at, request.accepted_at) == (NOW, NOW)


async def test_a_duplicate_changes_and_asks_nothing(world: World) -> None:
    await world.folder.process([record(event(1))])
    rows = dict(world.table.rows)
    await world.folder.process([record(event(1), offset=1)])
    assert world.table.rows == rows
    assert len(world.sent(Topic.QUERY_REQUESTS)) == 1


async def test_cleaning_drops_without_a_dead_letter(world: World) -> None:
    await world.folder.process([record(event(1, "facebook"))])
    assert not world.table.rows
    assert not world.producer.sent


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Record(key=b"u1", value=b"not json", offset=7), "not JSON"),
        (Record(key=b"u1", value=None, offset=7), "empty record"),
        (Record(key=b"someone else", value=EVENTS.encode(event(1)), offset=7), "key is not its user_id"),
        (Record(key=None, value=EVENTS.encode(event(1)), offset=7), "key is not its user_id"),
        (
            Record(
                key=b"u1",
                offset=7,
                value=EVENTS.encode(
                    Event(event_id="1", user_id="u1", kind="page", text="x y", occurred_at=NOW + 10**6)
                ),
            ),
            "in the future",
        ),
    ],
)
async def test_a_bad_record_is_a_dead_letter_and_the_rest_goes_on(world: World, bad: Record, reason: str) -> None:
    await world.folder.process([bad, record(event(1), offset=8)])
    (message,) = [m for m in world.producer.sent if m.topic == Topic.DEAD_LETTERS]
    letter = read_dead_letter(dict(message.headers), message.value or b"")
    assert reason in letter.reason
    assert (letter.source_topic, letter.source_offset, letter.value) == ("user-events", 7, bad.value or b"")
    assert b"u1" in world.table.rows


async def test_less_than_enough_is_asked_for_when_its_time_comes(world: World) -> None:
    await world.folder.process([record(event(1)), record(event(2))])  # asked for at once: first signals
    world.now += 60_000
    await world.folder.process([record(event(3))])
    assert len(world.sent(Topic.QUERY_REQUESTS)) == 1
    await world.folder.refresh_due(lambda _: True)
    assert len(world.sent(Topic.QUERY_REQUESTS)) == 1
    world.now += 600_000
    await world.folder.refresh_due(lambda _: True)
    assert len(world.sent(Topic.QUERY_REQUESTS)) == 2


async def test_a_restored_table_remembers_who_waits(world: World) -> None:
    await world.folder.process([record(event(1)), record(event(2))])
    world.now += 60_000
    await world.folder.process([record(event(3))])
    restarted = ProfileFolder(CONFIG, world.table, world.producer, lambda: world.now + 600_000)
    restarted.recover(0, world.table.rows)
    await restarted.refresh_due(lambda _: True)
    assert len(world.sent(Topic.QUERY_REQUESTS)) == 2


async def test_another_workers_partition_is_left_alone(world: World) -> None:
    await world.folder.process([record(event(1)), record(event(2))])
    world.now += 60_000
    await world.folder.process([record(event(3))])
    world.now += 600_000
    await world.folder.refresh_due(lambda _: False)
    assert len(world.sent(Topic.QUERY_REQUESTS)) == 1


async def test_a_batch_that_could_not_be_sent_may_be_processed_again(world: World) -> None:
    world.producer.failures = 1
    with pytest.raises(Unavailable):
        await world.folder.process([record(event(1))])
    assert not world.table.rows
    await world.folder.process([record(event(1))])
    assert decode_record(world.table.rows[b"u1"]).refresh.requested_at == NOW


async def test_rows_that_are_not_stored_end_the_worker(world: World) -> None:
    world.table.failures = 1
    with pytest.raises(RowsNotStored):
        await world.folder.process([record(event(1))])


async def test_partitions_that_moved_end_a_fold_but_not_the_requests_that_time_makes_due(world: World) -> None:
    await world.folder.process([record(event(1)), record(event(2))])
    world.now += 60_000
    await world.folder.process([record(event(3))])
    world.now += 600_000
    world.table.moved = 1
    await world.folder.refresh_due(lambda _: True)  # a worker that has just joined holds them
    await world.folder.refresh_due(lambda _: True)
    assert len(world.sent(Topic.QUERY_REQUESTS)) == 3  # asked again once they are back: the fingerprint is the same
    world.table.moved = 1
    with pytest.raises(RowsNotStored):
        await world.folder.process([record(event(4))])
