"""Receipts from what an erasure saw: progress, stores, and until when logs keep what."""

import msgspec
import pytest

from schemas.clients.vector_store import StoredSlot
from schemas.erasure import Erasure, ErasureReceipt, StoreReceipt
from schemas.names import Header, Topic
from schemas.profile import Signal, UserProfile
from stream.erasure.progress import Progress
from stream.erasure.receipts import LettersRemoved, Seen, is_online, receipt
from stream.erasure.retention import LogKeeping
from stream.profiles.record import ProfileRecord, encode_record
from tests.stream.doubles import Record

NOW = 1_700_000_000_000
DAY = 86_400_000
WEEK = LogKeeping(compacts=False, deletes=True, compaction_lag_ms=None, retention_ms=7 * DAY, segment_ms=DAY)
COMPACT = LogKeeping(compacts=True, deletes=False, compaction_lag_ms=DAY, retention_ms=7 * DAY, segment_ms=DAY)
BOTH = LogKeeping(compacts=True, deletes=True, compaction_lag_ms=DAY, retention_ms=30 * DAY, segment_ms=DAY)
FOR_EVER = LogKeeping(compacts=False, deletes=True, compaction_lag_ms=None, retention_ms=None, segment_ms=DAY)
KEEPING = {
    Topic.PROFILES_CHANGELOG: COMPACT,
    Topic.QUERY_REQUESTS: COMPACT,
    Topic.QUERY_LISTS: COMPACT,
    Topic.DEAD_LETTERS: BOTH,
    Topic.USER_EVENTS: WEEK,
    Topic.OUTCOMES: FOR_EVER,
}
DONE = StoreReceipt(store="archive", state="clean", unit="rows", found=0, removed=0)


def row(erased_before: int = NOW, user: bytes = b"ann", *times: int) -> Record:
    profile = UserProfile("ann", erased_before=erased_before, search=tuple(Signal(at, str(at), "x") for at in times))
    return Record(topic=Topic.PROFILES_CHANGELOG, key=user, value=encode_record(ProfileRecord(profile)))


def tombstone(topic: str, *, before: int = NOW, stage: str = "", user: bytes = b"ann", signals: int = 0) -> Record:
    headers = (
        (Header.ERASED_BEFORE, str(before).encode()),
        (Header.STAGE, stage.encode()),
        (Header.SIGNALS_FOUND, str(signals).encode()),
    )
    return Record(topic=topic, key=user, value=None, headers=headers)


ALL = (
    tombstone(Topic.QUERY_REQUESTS, signals=7),
    row(),
    tombstone(Topic.QUERY_LISTS, stage="signals"),
    tombstone(Topic.QUERY_LISTS, stage="interests"),
)


def progress(*records: Record) -> Progress:
    made = Progress(Erasure(user_id="ann", erased_before=NOW, requested_at=NOW))
    for at, record in enumerate(records):
        made.take(record, NOW + at)
    return made


def seen(made: Progress, **fields: object) -> Seen:
    plain = Seen(
        progress=made,
        signals_found=made.signals_found,
        rows_before=[StoredSlot(slot=0, generated_at=NOW - 5)] * 3,
        rows_after=[],
        letters=LettersRemoved(removed=1, untied=0, at=NOW),
        archive=DONE,
        keeping=KEEPING,
        online_seconds=1.23456,
        answered_at=NOW + 9,
    )
    return msgspec.structs.replace(plain, **fields)


def by_store(made: ErasureReceipt) -> dict[str, StoreReceipt]:
    return {store.store: store for store in made.stores}


def test_all_signs_together_mean_done() -> None:
    made = progress(*ALL)
    assert made.done
    assert (made.signals_found, made.profile_at, made.requests_at, made.lists_at) == (7, NOW + 1, NOW, NOW + 3)


@pytest.mark.parametrize("missing", range(4))
def test_any_sign_that_is_missing_means_not_done(missing: int) -> None:
    assert not progress(*(record for at, record in enumerate(ALL) if at != missing)).done


@pytest.mark.parametrize(
    "foreign",
    [
        row(NOW - 1),
        row(NOW, b"bob"),
        tombstone(Topic.QUERY_REQUESTS, before=NOW - 1),
        tombstone(Topic.QUERY_REQUESTS, user=b"bob"),
        Record(topic=Topic.QUERY_REQUESTS, key=b"ann", value=None),
        Record(topic=Topic.QUERY_REQUESTS, key=b"ann", value=b"{}"),
        Record(topic=Topic.USER_EVENTS, key=b"ann", value=None),
    ],
)
def test_signs_of_others_and_of_earlier_erasures_say_nothing(foreign: Record) -> None:
    made = progress(foreign)
    assert (made.profile_at, made.requests_at, made.lists_at, made.signals_found) == (None, None, None, 0)


def test_a_later_erasure_carries_out_this_one_too() -> None:
    later = [msgspec.structs.replace(record) for record in ALL if record.value is None]
    assert progress(row(NOW + 5), *later).done


def test_what_is_left_in_the_row_is_known() -> None:
    assert progress(row(NOW, b"ann", NOW + 3, NOW + 8)).newest_signal() == NOW + 8
    assert progress(row()).newest_signal() == 0


def test_a_receipt_of_a_completed_erasure() -> None:
    made = receipt(seen(progress(*ALL), keeping={**KEEPING, Topic.OUTCOMES: WEEK}))
    stores = by_store(made)
    assert made.complete
    assert made.found_anything
    assert made.online_seconds == 1.235
    assert (stores["profile"].found, stores["profile"].removed, stores["profile"].gone_by) == (7, 7, NOW + 1 + DAY)
    assert (stores["queries"].found, stores["queries"].removed, stores["queries"].at) == (3, 3, NOW + 3)
    assert stores["dead_letters"].gone_by == NOW + DAY
    assert (stores["events"].state, stores["events"].gone_by) == ("kept", NOW + 8 * DAY)
    assert stores["fresh_matches"].state == "absent"
    assert {name for name, store in stores.items() if is_online(store)} == {"profile", "requests", "lists", "queries"}


def test_an_unknown_reader_gets_a_receipt_that_says_so() -> None:
    nothing = (tombstone(Topic.QUERY_REQUESTS), *ALL[1:])
    letters = LettersRemoved(removed=0, untied=2, at=NOW)
    made = receipt(seen(progress(*nothing), rows_before=[], letters=letters, keeping={}))
    assert made.complete
    assert not made.found_anything
    assert "2 letters hold bytes that cannot be tied" in by_store(made)["dead_letters"].detail


def test_without_workers_everything_online_is_under_way_and_the_worker_is_named() -> None:
    made = receipt(seen(progress()))
    assert not made.complete
    online = [store for store in made.stores if is_online(store)]
    assert {store.state for store in online} == {"under way"}
    assert all("profiles" in store.detail and store.at is None for store in online)


def test_the_worker_that_is_behind_is_named() -> None:
    stores = by_store(receipt(seen(progress(*ALL[:3]))))
    assert [stores[name].state for name in ("profile", "requests", "lists", "queries")] == [
        "clean",
        "clean",
        "under way",
        "under way",
    ]
    assert "interests" in stores["lists"].detail
    assert "signals" not in stores["lists"].detail


@pytest.mark.parametrize(
    ("fields", "store", "state"),
    [
        ({"rows_after": [StoredSlot(slot=77, generated_at=NOW)]}, "queries", "left"),
        ({"rows_after": [StoredSlot(slot=0, generated_at=NOW + 1)]}, "queries", "clean"),  # came back
        ({"rows_after": None}, "queries", "under way"),
        ({"letters": LettersRemoved(removed=0, untied=0, at=NOW, failure="away")}, "dead_letters", "left"),
        ({}, "outcomes", "left"),  # the topic keeps its records for ever
    ],
)
def test_what_is_left_is_said(fields: dict[str, object], store: str, state: str) -> None:
    made = receipt(seen(progress(*ALL), **fields))
    assert by_store(made)[store].state == state
    assert not made.complete  # outcomes are kept for ever here


@pytest.mark.parametrize(
    ("keeping", "replaced", "written"),
    [
        (WEEK, NOW + 8 * DAY, NOW + 8 * DAY),
        (COMPACT, NOW + DAY, None),
        (BOTH, NOW + DAY, NOW + 31 * DAY),
        (FOR_EVER, None, None),
        (msgspec.structs.replace(COMPACT, compaction_lag_ms=None), None, None),
    ],
)
def test_until_when_a_log_keeps_what(keeping: LogKeeping, replaced: int | None, written: int | None) -> None:
    assert (keeping.replaced_gone_by(NOW), keeping.written_gone_by(NOW)) == (replaced, written)


def test_the_receipts_json_is_stable() -> None:
    made = msgspec.to_builtins(receipt(seen(progress(*ALL))))
    assert list(made) == [
        "version", "user_id", "erased_before", "requested_at", "answered_at", "online_seconds", "found_anything",
        "complete", "stores",
    ]  # fmt: skip
    assert [store["store"] for store in made["stores"]] == [
        "profile", "requests", "lists", "queries", "dead_letters", "archive", "events", "exposures", "outcomes",
        "fresh_matches",
    ]  # fmt: skip
    assert made["stores"][0] == {
        "store": "profile",
        "state": "clean",
        "unit": "signals",
        "found": 7,
        "removed": 7,
        "at": NOW + 1,
        "gone_by": NOW + 1 + DAY,
    }
