"""The local view: by itself, and following a real broker."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from keenstream.stack.kafka import kafka_server
from keenstream.stack.ports import free_port
from schemas.codec import LISTS
from schemas.config import Config, Kafka
from schemas.errors import Unavailable
from schemas.names import Topic
from schemas.profile import Signal, UserProfile
from schemas.queries import QueryList
from stream.api.profile_rows import ProfileRows
from stream.api.views import ReaderViews, ViewFollower
from stream.producer import KafkaProducer, Outgoing
from stream.profiles.record import ProfileRecord, decode_record, encode_record
from stream.topics import all_topics
from stream.transport import create_topics
from tests.stream.doubles import Record


def profile_row(user_id: str, *texts: str) -> bytes:
    signals = tuple(Signal(at, f"e{at}", text) for at, text in enumerate(texts))
    return encode_record(ProfileRecord(UserProfile(user_id, search=signals)))


def profile_message(user_id: str, *texts: str) -> Outgoing:
    return Outgoing(Topic.PROFILES_CHANGELOG, user_id.encode(), profile_row(user_id, *texts))


def query_list(user_id: str) -> QueryList:
    return QueryList(
        user_id=user_id,
        queries=("a query",),
        signals=(),
        source="student",
        profile_fingerprint="f",
        model="m",
        model_version="1",
        prompt_version="p",
        generated_at=1,
        expires_at=2,
    )


class Heard:
    """Views that remember what they told others."""

    def __init__(self, file: Path | None = None) -> None:
        self.lists: list[str] = []
        self.removed: list[str] = []
        self.views = ReaderViews(
            ProfileRows(file),
            lambda data: decode_record(data).profile,
            on_list=lambda written: self.lists.append(written.user_id),
            on_removed=self.removed.append,
        )


def test_rows_survive_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    heard = Heard(tmp_path / "rows.sqlite")
    records = [
        Record(topic=Topic.PROFILES_CHANGELOG, key=b"ann", value=profile_row("ann", "first")),
        Record(topic=Topic.PROFILES_CHANGELOG, key=b"bob", value=profile_row("bob", "his")),
        Record(topic=Topic.PROFILES_CHANGELOG, key=b"ann", value=profile_row("ann", "first", "second")),
        Record(topic=Topic.PROFILES_CHANGELOG, key=b"bob", value=None),
    ]
    heard.views.apply(records)
    ann = heard.views.profile("ann")
    assert ann is not None
    assert [signal.text for signal in ann.search] == ["first", "second"]
    assert heard.views.profile("bob") is None
    assert heard.removed == ["bob"]


def test_an_old_file_is_not_believed(tmp_path: Path) -> None:
    rows = ProfileRows(tmp_path / "rows.sqlite")
    rows.apply([(b"ann", b"old")])
    rows.close()
    assert ProfileRows(tmp_path / "rows.sqlite").get(b"ann") is None


def test_a_list_that_does_not_decode_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    heard = Heard()
    good = Record(topic=Topic.QUERY_LISTS, key=b"ann", value=LISTS.encode(query_list("ann")))
    heard.views.apply([Record(topic=Topic.QUERY_LISTS, key=b"x", value=b"{"), good])
    assert heard.lists == ["ann"]
    assert "passed over" in caplog.text


@asynccontextmanager
async def following(bootstrap: str, heard: Heard) -> AsyncIterator[ViewFollower]:
    follower = ViewFollower(bootstrap, heard.views)
    task = asyncio.create_task(follower.follow())
    try:
        yield follower
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


@pytest.fixture
def broker(kafka: str) -> str:
    """The shared broker with the topics; other tests may have written to them, so ids here are this file's own."""
    create_topics(kafka, all_topics(Config(kafka=Kafka(bootstrap=kafka))))
    return kafka


@pytest.mark.stack
async def test_the_view_reads_what_was_there_and_follows(broker: str) -> None:
    heard = Heard()
    async with KafkaProducer(broker) as producer:
        await producer.send([profile_message(f"view-{n}", "x") for n in range(500)])
        async with following(broker, heard) as follower:
            await until(lambda: heard.views.ready)
            await follower.check()
            assert all(heard.views.profile(f"view-{n}") for n in range(500))
            await producer.send([profile_message("view-0", "x", "y")])
            await producer.send([Outgoing(Topic.PROFILES_CHANGELOG, b"view-1", None)])
            await producer.send([Outgoing(Topic.QUERY_LISTS, b"view-2", LISTS.encode(query_list("view-2")))])
            await until(lambda: "view-2" in heard.lists and "view-1" in heard.removed)
            await until(lambda: len((heard.views.profile("view-0") or UserProfile("")).search) == 2)
    assert heard.views.profile("view-1") is None


@pytest.mark.stack
async def test_the_view_waits_for_a_broker_that_is_away(tmp_path: Path) -> None:
    heard, port = Heard(), free_port()
    bootstrap = f"127.0.0.1:{port}"
    async with following(bootstrap, heard) as follower:
        with pytest.raises(Unavailable, match="keenstream stack up"):
            await follower.check()
        server = kafka_server(tmp_path, port)
        await asyncio.to_thread(server.__enter__)
        try:
            await asyncio.to_thread(create_topics, bootstrap, all_topics(Config(kafka=Kafka(bootstrap=bootstrap))))
            await until(lambda: heard.views.ready, 60)
            await follower.check()
        finally:
            await asyncio.to_thread(server.__exit__, None, None, None)
        with pytest.raises(Unavailable):
            await follower.check()
