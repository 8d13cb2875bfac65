"""Erasures on a real broker and a real Milvus, with the workers as processes; no model is asked for anything here."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest

from bench._worker import Worker, worker
from keenstream.stack.kafka import kafka_server
from schemas.clients.milvus import MilvusStore
from schemas.clients.vector_store import SIGNAL_SLOTS, STUDENT_SLOTS, SlotWrite, UserQuery
from schemas.codec import ERASURES, EVENTS, LISTS, REQUESTS
from schemas.config import Archive, Config, Kafka, Milvus, Refresh, environment_of
from schemas.erasure import Erasure, ErasureReceipt, ErasureSearch, StoreSearch
from schemas.event import Event
from schemas.exposure import Outcome
from schemas.names import App, Header, Topic
from schemas.profile import Signal, UserProfile, fingerprint
from schemas.queries import QueryList, QueryRequest
from stream.clock import now_ms
from stream.dead_letters import dead_letter
from stream.erasure.files import erase_files
from stream.erasure.search import search_reader
from stream.erasure.service import EraseService
from stream.producer import KafkaProducer, Outgoing
from stream.profiles.record import ProfileRecord, decode_record, encode_record
from stream.topic_reader import read_topic
from stream.topics import all_topics
from stream.transport import create_topics
from tests.integration.processes import members, wait_for
from tests.stream.doubles import Record

pytestmark = [pytest.mark.stack]
Answer = TypeVar("Answer")
WORKERS = {"profiles": App.PROFILES, "signals": App.SIGNALS, "interests": App.INTERESTS}
QUIET = Refresh(cold_signals=0, threshold=1e9, pending_seconds=1e6)  # no lists are asked for, so no model is needed


class Loop:
    """A broker of its own, a Milvus, and the workers that are running."""

    def __init__(self, config: Config, folder: Path, stack: ExitStack) -> None:
        self.config, self._folder, self._stack = config, folder, stack
        self.workers: dict[str, Worker] = {}

    def start(self, *names: str) -> None:
        for name in names:
            self.workers[name] = self._stack.enter_context(worker(name, self.config, self._folder))

    def ready(self) -> None:
        for name in self.workers:
            group = WORKERS[name]
            wait_for(lambda group=group: members(self.config, group) == 1, name, *self.workers.values())  # type: ignore[misc]

    def call(self, action: Callable[[MilvusStore, KafkaProducer], Awaitable[Answer]]) -> Answer:
        async def run() -> Answer:
            store = MilvusStore(self.config.milvus)
            try:
                async with KafkaProducer(self.config.kafka) as producer:
                    return await action(store, producer)
            finally:
                await store.close()

        return asyncio.run(run())

    def send(self, *messages: Outgoing) -> None:
        self.call(lambda store, producer: producer.send(messages))

    def erase(self, user: str, before_ms: int | None = None, wait_seconds: float = 60.0) -> ErasureReceipt:
        folder = Path(self.config.archive.folder)

        def files(user_id: str, before: int) -> Any:
            return erase_files(folder, user_id, before)

        return self.call(
            lambda store, producer: EraseService(self.config, store, producer, now_ms, erase_archive=files).erase(
                user, before_ms=before_ms, wait_seconds=wait_seconds
            )
        )

    def search(self, user: str) -> ErasureSearch:
        folder = Path(self.config.archive.folder)
        return self.call(
            lambda store, producer: search_reader(self.config, store, user, clock_ms=now_ms, archive=folder)
        )

    def profiles(self) -> dict[str, UserProfile]:
        rows = {record.key: record.value for record in read_topic(self.config.kafka, Topic.PROFILES_CHANGELOG)}
        return {key.decode(): decode_record(value).profile for key, value in rows.items()}

    def profile(self, user: str) -> UserProfile:
        return self.profiles().get(user) or UserProfile(user)


@pytest.fixture(scope="module")
def config(milvus: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    folder = tmp_path_factory.mktemp("erasure")
    with kafka_server(folder / "kafka") as server:
        config = Config(
            kafka=Kafka(bootstrap=server.bootstrap, session_timeout_seconds=6.0),
            milvus=Milvus(uri=milvus),
            refresh=QUIET,
            archive=Archive(folder=str(folder / "archive"), roll_seconds=0.5),
        )
        create_topics(server.bootstrap, all_topics(config))
        asyncio.run(_prepared(config))
        yield config


async def _prepared(config: Config) -> None:
    store = MilvusStore(config.milvus)
    await store.prepare()
    await store.close()


@pytest.fixture
def loop(config: Config, tmp_path: Path) -> Iterator[Loop]:
    with ExitStack() as stack:
        yield Loop(config, tmp_path, stack)


def event(user: str, number: int, at_ms: int, text: str = "heat pumps") -> Outgoing:
    row = Event(event_id=f"{user}-{number}", user_id=user, kind="search", text=f"{text} {number}", occurred_at=at_ms)
    return Outgoing(Topic.USER_EVENTS, user.encode(), EVENTS.encode(row))


def rows(user: str, generated_at: int) -> list[SlotWrite]:
    """Two rows of the student's and three of the signals'."""
    return [
        SlotWrite(user_id=user, slots=slots, rows=tuple(row(user, slot, generated_at) for slot in slots[:count]))
        for slots, count in ((STUDENT_SLOTS, 2), (SIGNAL_SLOTS, 3))
    ]


def row(user: str, slot: int, generated_at: int) -> UserQuery:
    return UserQuery(
        user_id=user,
        slot=slot,
        source="student" if slot in STUDENT_SLOTS else "signals",
        query=f"query {slot}",
        embedding=np.ones(384, np.float32) / 384**0.5,
        profile_fingerprint="",
        model="",
        model_version="",
        prompt_version="",
        generated_at=generated_at,
        expires_at=generated_at + 10**9,
    )


def query_list(user: str, generated_at: int) -> Outgoing:
    written = QueryList(
        user_id=user,
        queries=("heat pump prices",),
        signals=("heat pumps",),
        source="student",
        profile_fingerprint="",
        model="m",
        model_version="1",
        prompt_version="1",
        generated_at=generated_at,
        expires_at=generated_at + 10**9,
    )
    return Outgoing(Topic.QUERY_LISTS, user.encode(), LISTS.encode(written))


def outcome(user: str, at_ms: int) -> Outgoing:
    made = Outcome(outcome_id=f"{user}-{at_ms}", user_id=user, kind="visit", occurred_at=at_ms)
    return Outgoing(Topic.OUTCOMES, user.encode(), msgspec.json.encode(made))


def states(receipt: ErasureReceipt) -> dict[str, str]:
    return {store.store: store.state for store in receipt.stores}


def found(receipt: ErasureReceipt) -> dict[str, int | None]:
    return {store.store: store.found for store in receipt.stores}


def archived(loop: Loop, user: str) -> int:
    from stream.archive.erasing import find_in_archive

    folder = Path(loop.config.archive.folder)
    return sum(find_in_archive(folder, user).values()) if folder.exists() else 0


def test_a_reader_is_erased_everywhere_and_late_events_do_not_bring_them_back(loop: Loop) -> None:
    start = now_ms() - 3_600_000
    loop.start("profiles", "signals", "interests", "archive")
    loop.send(*(event(user, number, start + number) for user in ("ann", "bob") for number in range(10)))
    loop.send(Outgoing(Topic.USER_EVENTS, b"ann", b'{"user_id": "ann", "kind": "purchase"}'), outcome("ann", start))
    loop.send(Outgoing(Topic.USER_EVENTS, b"bob", b"not json of bob"), query_list("ann", start))
    loop.call(lambda store, producer: store.write_user_queries([*rows("ann", start), *rows("bob", start)]))
    wait_for(lambda: len(loop.profile("ann").search) == len(loop.profile("bob").search) == 10, "fold")
    wait_for(lambda: archived(loop, "ann") == 12, "archive")

    loop.workers["archive"].stop()  # or it may rewrite the files first

    receipt = loop.erase("ann")
    assert receipt.complete, receipt
    assert found(receipt) | {"dead_letters": 0} == {
        "profile": 10, "requests": None, "lists": None, "queries": 5, "dead_letters": 0, "archive": 12,
        "events": None, "exposures": None, "outcomes": None, "fresh_matches": None,
    }  # fmt: skip
    assert found(receipt)["dead_letters"] == 1  # one record, although both workers refused it
    assert receipt.found_anything
    assert all(store.gone_by for store in receipt.stores if store.state == "kept")
    assert b"heat pumps" not in msgspec.json.encode(receipt)
    search = loop.search("ann")
    assert search.clean, search
    assert {row.store: row.waiting for row in search.stores}["events"] == 11
    assert loop.search("bob").clean is False  # nobody asked, and everything is there
    assert len(loop.profile("bob").search) == 10
    assert len(loop.call(lambda store, producer: store.find_user("bob"))) == 5

    loop.send(*(event("ann", number, start + number) for number in (3, 50)), event("zoe", 1, start))
    wait_for(lambda: len(loop.profile("zoe").search) == 1, "late events")
    assert loop.profile("ann") == UserProfile("ann", erased_before=receipt.erased_before)
    assert loop.search("ann").clean

    back = now_ms()
    loop.send(event("ann", 99, back))
    wait_for(lambda: len(loop.profile("ann").search) == 1, "the reader who came back")
    assert [signal.occurred_at for signal in loop.profile("ann").search] == [back]
    assert loop.search("ann").clean

    nobody = loop.erase("nobody")
    assert (nobody.complete, nobody.found_anything) == (True, False)
    assert loop.search("nobody").clean

    # of a producer whose clock is ahead
    loop.send(event("ahead", 1, now_ms() - 1_000), event("ahead", 2, now_ms() + 120_000))
    wait_for(lambda: len(loop.profile("ahead").search) == 2, "fold")
    ahead = loop.erase("ahead")
    assert (ahead.complete, found(ahead)["profile"]) == (True, 2)
    assert not loop.profile("ahead").search


@pytest.mark.fault
def test_a_wish_outlives_workers_that_are_away_and_workers_that_are_killed(loop: Loop) -> None:
    users, start = [f"k{number:03d}" for number in range(60)], now_ms() - 3_600_000
    loop.call(lambda store, producer: store.write_user_queries([w for user in users for w in rows(user, start)]))
    loop.send(*(event(user, number, start + number) for number in range(20) for user in users))
    receipt = loop.erase("k000", wait_seconds=0.5)
    assert not receipt.complete
    assert {states(receipt)[name] for name in ("profile", "requests", "lists", "queries")} == {"under way"}
    assert any("the wish is stored" in store.detail for store in receipt.stores)
    assert not loop.search("k000").clean
    loop.start("profiles", "signals", "interests")
    wait_for(lambda: len(loop.profile(users[-1]).search) == 20, "fold")
    wait_for(lambda: loop.search("k000").clean, "the stored wish", every=0.5)

    def wish(user: str) -> Outgoing:
        erasure = Erasure(user_id=user, erased_before=now_ms(), requested_at=now_ms())
        return Outgoing(Topic.ERASURES, user.encode(), ERASURES.encode(erasure))

    def left(store: MilvusStore, _: KafkaProducer) -> Awaitable[Any]:
        return asyncio.gather(*map(store.find_user, users))

    for name, half in (("profiles", users[1:30]), ("signals", users[30:])):
        loop.send(*map(wish, half))
        metric = {"profiles": "keenstream_readers_erased_total", "signals": "keenstream_queries_erased_total"}[name]
        wait_for(lambda n=name, m=metric: loop.workers[n].metric(m) > 0, f"{name} at work", every=0.005)  # type: ignore[misc]
        loop.workers[name].kill()
        loop.send(*(event(user, 5, start + 5) for user in half))  # late events beside it
        loop.start(name)
    wait_for(lambda: _none_known(loop.profiles(), users), "the profiles", every=0.5)
    wait_for(lambda: not any(loop.call(left)), "the rows", every=0.5)
    wait_for(lambda: loop.search(users[-1]).clean, "a clean search", every=0.5)


def _none_known(profiles: dict[str, UserProfile], users: list[str]) -> bool:
    return not any(profiles[user].search for user in users)


LONG_AGO = 1_600_000_000_000


def plant(name: str, user: str) -> Outgoing:
    """Something of the reader from before, as it would be left by an erasure that forgot a store."""
    profile = UserProfile(user, search=(Signal(LONG_AGO, "e1", "heat pumps"),))
    key = user.encode()
    if name == "profile":
        return Outgoing(Topic.PROFILES_CHANGELOG, key, encode_record(ProfileRecord(profile)))
    if name == "requests":
        request = QueryRequest(
            user_id=user, profile=profile, profile_fingerprint=fingerprint(profile), requested_at=LONG_AGO
        )
        return Outgoing(Topic.QUERY_REQUESTS, key, REQUESTS.encode(request))
    if name == "lists":
        return query_list(user, LONG_AGO)
    broken = Record(topic=Topic.USER_EVENTS, offset=hash(user) % 10**6, key=b"", value=f"cut off: {user} sa".encode())
    return dead_letter(broken, stage="profiles", reason="not JSON", failed_at_ms=LONG_AGO)


def of(search: ErasureSearch, name: str) -> StoreSearch:
    return next(store for store in search.stores if store.store == name)


def test_the_search_finds_whatever_an_erasure_forgot(loop: Loop) -> None:
    """Carried out by hand: the wish, the closed row, both tombstones. Then one thing after the other is left behind."""
    user, now = "planted", now_ms()
    wish = Erasure(user_id=user, erased_before=now, requested_at=now)
    closed = encode_record(ProfileRecord(UserProfile(user, erased_before=now)))
    limit = (Header.ERASED_BEFORE, str(now).encode())
    clean = {
        "profile": Outgoing(Topic.PROFILES_CHANGELOG, user.encode(), closed),
        "requests": Outgoing(Topic.QUERY_REQUESTS, user.encode(), None, (limit,)),
        "lists": Outgoing(Topic.QUERY_LISTS, user.encode(), None, (limit, (Header.STAGE, b"signals"))),
    }
    loop.send(Outgoing(Topic.ERASURES, user.encode(), ERASURES.encode(wish)), clean["profile"], clean["requests"])
    assert "interests" in of(loop.search(user), "lists").detail
    loop.send(clean["lists"], Outgoing(Topic.QUERY_LISTS, user.encode(), None, (limit, (Header.STAGE, b"interests"))))
    assert loop.search(user).clean
    for name in ("profile", "requests", "lists", "dead_letters"):
        left = plant(name, user)
        loop.send(left)
        assert [store.store for store in loop.search(user).stores if store.left] == [name]
        loop.send(clean.get(name) or Outgoing(Topic.DEAD_LETTERS, left.key, None))
    for slot in (12, 77):  # the second is no slot of this version: only the reader's field finds it
        write = SlotWrite(user_id=user, slots=range(slot, slot + 1), rows=(row(user, slot, LONG_AGO),))
        loop.call(lambda store, producer, write=write: store.write_user_queries([write]))  # type: ignore[misc]
        assert [store.store for store in loop.search(user).stores if store.left] == ["queries"]
        loop.call(lambda store, producer, slot=slot: store.delete_user(user, range(slot, slot + 1)))  # type: ignore[misc]
    assert loop.search(user).clean


def command(loop: Loop, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "keenstream.cli", *arguments],
        env={**os.environ, **environment_of(loop.config), "KEENSTREAM_HOME": str(loop._folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command_says_what_is_under_way_and_what_is_left(loop: Loop) -> None:
    done = command(loop, "erase", "cara", "--yes", "--wait", "0.5", "--json")
    assert done.returncode == 1, done.stderr
    receipt = json.loads(done.stdout)
    assert (receipt["user_id"], receipt["complete"]) == ("cara", False)
    assert "workers carry it out when they run" in done.stderr
    again = command(loop, "erase", "cara", "--verify")
    assert (again.returncode, "not clean" in again.stdout) == (1, True)
    unknown = command(loop, "erase", "nobody-ever", "--verify", "--json")
    assert (unknown.returncode, json.loads(unknown.stdout)["clean"]) == (0, True)


def test_replaying_dead_letters_twice_changes_nothing(loop: Loop) -> None:
    at = now_ms() - 60_000
    wrong_key = event("dora", 1, at)
    loop.send(Outgoing(Topic.USER_EVENTS, b"dora", b"broken for ever"), msgspec.structs.replace(wrong_key, key=b"x"))
    loop.start("profiles")
    profiles = loop.workers["profiles"]
    wait_for(lambda: profiles.metric("keenstream_dead_letters_total") == 2, "letters", profiles)
    listed = json.loads(command(loop, "dead-letters", "list", "--json", "--since", "1h", "--limit", "100").stdout)
    sent = json.loads(command(loop, "dead-letters", "replay", "--json", "--since", "1h").stdout)
    assert sent["replayed"] == len(listed) >= 2
    wait_for(lambda: profiles.metric("keenstream_dead_letters_total") == 2 + sent["replayed"], "again", profiles)
    after = json.loads(command(loop, "dead-letters", "list", "--json", "--since", "1h", "--limit", "100").stdout)
    assert {letter["id"] for letter in after} == {letter["id"] for letter in listed}  # they do not multiply
    assert all(letter["replays"] == 1 and letter["open"] for letter in after)
    assert not loop.profile("dora").search
