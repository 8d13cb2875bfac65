import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import ARTICLES, EVENTS, MAX_RECORD_BYTES
from schemas.errors import InvalidRecord
from schemas.event import check_time
from tests.schemas.strategies import events

GOOD = {"event_id": "e1", "user_id": "u1", "kind": "search", "text": "roses", "occurred_at": 1_700_000_000_000}


def test_the_documented_event_decodes() -> None:
    event = EVENTS.decode(msgspec.json.encode(GOOD))
    assert (event.user_id, event.consent, event.url) == ("u1", True, None)


def test_unknown_fields_of_a_newer_producer_are_ignored() -> None:
    assert EVENTS.decode(msgspec.json.encode({**GOOD, "device": "phone"})).event_id == "e1"


@given(events())
def test_encoding_round_trips(event: object) -> None:
    assert EVENTS.decode(EVENTS.encode(event)) == event  # type: ignore[arg-type]


IDENTIFIER = "send 1 to 128 characters, none a control character"
TIME = "send milliseconds since 1970, UTC"


@pytest.mark.parametrize(
    ("change", "names", "advises"),
    [
        ({"kind": "purchase"}, "kind", "send one of click, page, search"),
        ({"occurred_at": None}, "occurred_at", TIME),
        ({"occurred_at": 1_700_000_000_000_000}, "occurred_at", TIME),
        ({"occurred_at": "yesterday"}, "occurred_at", TIME),
        ({"user_id": ""}, "user_id", IDENTIFIER),
        ({"user_id": "a\x00b"}, "Control character - at `$.user_id`", IDENTIFIER),
        ({"event_id": "a\nb"}, "event_id", IDENTIFIER),
        ({"article_id": "a\nb"}, "article_id", IDENTIFIER),
        ({"text": ""}, "text", "send 1 to 2000 characters"),
        ({"text": "x" * 2_001}, "text", "send 1 to 2000 characters"),
        ({"consent": "yes"}, "consent", "send true or false"),
    ],
)
def test_a_broken_field_is_named_with_what_to_send(change: dict[str, object], names: str, advises: str) -> None:
    with pytest.raises(InvalidRecord) as caught:
        EVENTS.decode(msgspec.json.encode({**GOOD, **change}))
    assert names in str(caught.value)
    assert advises in str(caught.value)
    assert "regex" not in str(caught.value)


@pytest.mark.parametrize("field", ["event_id", "user_id", "kind", "text", "occurred_at"])
def test_a_missing_field_is_named_with_what_to_send(field: str) -> None:
    with pytest.raises(InvalidRecord, match=f"required field `{field}`: send "):
        EVENTS.decode(msgspec.json.encode({name: value for name, value in GOOD.items() if name != field}))


@pytest.mark.parametrize("data", [b"", None, b"not json", b"[]", b"\xff\xfe", b'{"event_id": "e', b"{}" + b"x"])
def test_what_is_no_record_is_said_to_be_none(data: bytes | None) -> None:
    with pytest.raises(InvalidRecord):
        EVENTS.decode(data)


def test_a_megabyte_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(InvalidRecord, match=str(MAX_RECORD_BYTES)):
        EVENTS.decode(msgspec.json.encode({**GOOD, "text": "x" * 1_000_000}))


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_invalid(data: bytes) -> None:
    try:
        EVENTS.decode(data)
    except InvalidRecord as error:
        assert str(error)


def test_the_reason_holds_no_text_of_the_reader() -> None:
    with pytest.raises(InvalidRecord) as caught:
        EVENTS.decode(msgspec.json.encode({**GOOD, "text": "secret " * 1_000}))
    assert "secret" not in str(caught.value)


def test_an_article_without_a_title_is_refused() -> None:
    article = {"article_id": "a", "url": "", "source": "s", "published_at": 1, "title": ""}
    with pytest.raises(InvalidRecord, match="title"):
        ARTICLES.decode(msgspec.json.encode(article))


def test_the_future_is_refused_beyond_the_skew() -> None:
    event = EVENTS.decode(msgspec.json.encode(GOOD))
    assert check_time(event, now_ms=event.occurred_at - 1_000, skew_ms=1_000) is event
    with pytest.raises(InvalidRecord, match="2 s in the future"):
        check_time(event, now_ms=event.occurred_at - 2_000, skew_ms=1_000)
