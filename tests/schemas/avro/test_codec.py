"""The codecs of a process, against a registry on 127.0.0.1."""

import json
import time
from collections.abc import Iterator

import msgspec
import pytest

from schemas.avro.codec import AvroCodec
from schemas.avro.published import published
from schemas.codec import EVENTS, MAX_RECORD_BYTES
from schemas.codecs import JSON_CODECS, Codecs, open_codecs
from schemas.config import Config, Registry
from schemas.contracts import CONTRACTS
from schemas.errors import InvalidRecord, Unavailable, UsageError
from schemas.event import Event
from schemas.names import Topic
from schemas.secret import Secret
from tests.schemas.local_registry import LocalRegistry, local_registry

EVENT = Event(event_id="e1", user_id="u1", kind="search", text="roses", occurred_at=1_700_000_000_000)
SUBJECT = "user-events-value"
NEWEST = published("Event")[-1].compact
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalRegistry]:
    with local_registry() as started:
        yield started


@pytest.fixture
def local(server: LocalRegistry) -> LocalRegistry:
    server.reset()
    return server


def codecs(url: str, *writes: str, **settings: object) -> Codecs:
    registry = msgspec.convert({"format": "avro", "url": url, "timeout_seconds": 2.0, **settings}, Registry)
    return open_codecs(Config(registry=registry), writes)


def decoded(made: Codecs, data: bytes) -> Event:
    """As a worker does: again, until the registry has answered."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return made.events.decode(data)
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def test_without_a_registry_everything_is_json() -> None:
    assert open_codecs(Config()) is JSON_CODECS
    with pytest.raises(InvalidRecord, match="KEENSTREAM_REGISTRY_URL"):
        EVENTS.decode(b"\x00\x00\x00\x00\x01abc")


def test_every_topic_has_its_codec() -> None:
    assert set(JSON_CODECS.by_topic()) == {contract.topic for contract in CONTRACTS}
    made = codecs("", ids=["Event/1=1"])
    assert all(isinstance(made.of(contract.topic), AvroCodec) for contract in CONTRACTS)


def test_what_one_process_writes_another_reads(local: LocalRegistry) -> None:
    number = local.add(SUBJECT, NEWEST)
    data = codecs(local.url, Topic.USER_EVENTS).events.encode(EVENT)
    assert data[:5] == b"\x00" + number.to_bytes(4, "big")
    assert decoded(codecs(local.url), data) == EVENT


def test_json_and_avro_are_read_side_by_side_whatever_is_written(local: LocalRegistry) -> None:
    local.add(SUBJECT, NEWEST)
    avro = codecs(local.url, Topic.USER_EVENTS)
    plain = codecs(local.url, format="json")
    assert plain.events.encode(EVENT) == EVENTS.encode(EVENT)
    for made in (avro, plain):
        assert decoded(made, avro.events.encode(EVENT)) == decoded(made, EVENTS.encode(EVENT)) == EVENT


def test_an_id_is_asked_for_once(local: LocalRegistry) -> None:
    local.add(SUBJECT, NEWEST)
    made = codecs(local.url, Topic.USER_EVENTS)
    for _ in range(20):
        decoded(made, made.events.encode(EVENT))
    assert sorted(local.asked) == ["GET /schemas/ids/100", f"POST /subjects/{SUBJECT}"]


@pytest.mark.parametrize(
    ("strategy", "subject"),
    [("topic", SUBJECT), ("record", "keenstream.Event"), ("topic-record", "user-events-keenstream.Event")],
)
def test_the_subject_is_named_by_the_strategy(local: LocalRegistry, strategy: str, subject: str) -> None:
    local.add(subject, NEWEST)
    made = codecs(local.url, Topic.USER_EVENTS, subject_strategy=strategy)
    assert decoded(made, made.events.encode(EVENT)) == EVENT


def test_an_unknown_id_is_a_dead_letter_with_its_number(local: LocalRegistry) -> None:
    with pytest.raises(InvalidRecord, match="knows no schema 4711"):
        decoded(codecs(local.url), b"\x00" + (4711).to_bytes(4, "big") + b"abc")


@pytest.mark.parametrize("fault", [500, "garbage", 401])
def test_a_registry_that_is_ill_holds_the_record_and_loses_nothing(local: LocalRegistry, fault: int | str) -> None:
    number = local.add(SUBJECT, NEWEST)
    data = codecs(local.url, Topic.USER_EVENTS).events.encode(EVENT)
    local.fault, made = fault, codecs(local.url, format="json")
    with pytest.raises(Unavailable):
        made.events.decode(data)
    assert made.events.decode(EVENTS.encode(EVENT)) == EVENT  # what needs no registry goes on
    local.fault = None
    assert decoded(made, data) == EVENT
    assert number == 100


def test_an_incompatible_schema_names_the_field_and_the_schema(local: LocalRegistry) -> None:
    schema = json.loads(NEWEST)
    schema["fields"] = [field for field in schema["fields"] if field["name"] != "text"]
    number = local.add("acme", json.dumps(schema))
    event = {"event_id": "e", "user_id": "u", "kind": "search", "occurred_at": 1}
    from tests.schemas.avro.test_wire import written

    data = written(schema, event)[5:]
    with pytest.raises(InvalidRecord, match=rf"missing required field `text` \(schema {number}\)"):
        decoded(codecs(local.url), b"\x00" + number.to_bytes(4, "big") + data)


def test_the_registry_is_away_at_the_start_and_the_ids_are_known() -> None:
    made = codecs(NOBODY, Topic.USER_EVENTS, ids=["Event/1=7"])
    data = made.events.encode(EVENT)
    assert data.startswith(b"\x00\x00\x00\x00\x07")
    assert made.events.decode(data) == EVENT


def test_the_registry_is_away_at_the_start_and_the_ids_are_learnt_when_it_is_back() -> None:
    with local_registry() as first:
        first.add(SUBJECT, NEWEST)
        port = int(first.url.rsplit(":", 1)[1].rstrip("/"))
    made = codecs(f"http://127.0.0.1:{port}", Topic.USER_EVENTS)
    with pytest.raises(Unavailable):
        made.events.encode(EVENT)
    with local_registry(port) as again:
        again.add(SUBJECT, NEWEST)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                data = made.events.encode(EVENT)
                break
            except Unavailable:
                time.sleep(0.05)
        assert decoded(made, data) == EVENT


def test_what_nobody_registered_is_said_at_the_start(local: LocalRegistry) -> None:
    with pytest.raises(UsageError, match=r"user-events-value.*schemas register"):
        codecs(local.url, Topic.USER_EVENTS)
    with pytest.raises(Unavailable, match="schemas register"):  # later it holds records instead of ending a worker
        codecs(local.url).events.encode(EVENT)


def test_wrong_credentials_are_said_at_the_start(local: LocalRegistry) -> None:
    local.credentials = ("worker", "hush")
    with pytest.raises(UsageError, match="KEENSTREAM_REGISTRY_USER"):
        codecs(local.url, Topic.USER_EVENTS)
    registry = Registry(format="avro", url=local.url, user="worker", password=Secret("hush"))
    local.add(SUBJECT, NEWEST)
    assert open_codecs(Config(registry=registry), (Topic.USER_EVENTS,)).events.encode(EVENT)


def test_avro_needs_a_registry_or_ids() -> None:
    with pytest.raises(UsageError, match="KEENSTREAM_REGISTRY_URL"):
        open_codecs(Config(registry=Registry(format="avro")))


@pytest.mark.parametrize("entry", ["Event=1", "Event/1", "Event/99=1", "Other/1=1", "Event/1=x"])
def test_a_wrong_pinned_id_is_named(entry: str) -> None:
    with pytest.raises(UsageError, match=entry):
        codecs("", ids=[entry])


def test_a_megabyte_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(InvalidRecord, match=str(MAX_RECORD_BYTES)):
        codecs("", ids=["Event/1=1"]).events.decode(b"\x00" * 1_000_000)
