from math import inf

from schemas.config import Refresh
from schemas.event import Event, Kind
from schemas.profile import UserProfile
from stream.profiles.pending import PendingRefreshes
from stream.profiles.record import ProfileRecord, RefreshState, decode_record, encode_record
from stream.profiles.refresh import due_at, fold_record, mark_requested, should_refresh

SETTINGS = Refresh(cold_signals=1, threshold=4.0, interval_seconds=30.0, pending_seconds=600.0)


def fold(record: ProfileRecord, number: int, now_ms: int, kind: Kind = "search") -> ProfileRecord:
    event = Event(event_id=str(number), user_id="u", kind=kind, text="text", occurred_at=number)
    return fold_record(record, event, settings=SETTINGS, signals_per_domain=50, now_ms=now_ms, accepted_at=number)


EMPTY = ProfileRecord(UserProfile("u"))


def test_nothing_new_is_never_due() -> None:
    assert due_at(EMPTY, SETTINGS) == inf


def test_a_cold_reader_is_due_at_once() -> None:
    assert should_refresh(fold(EMPTY, 1, now_ms=1_000), SETTINGS, 1_000)


def test_a_duplicate_adds_no_weight() -> None:
    once = fold(EMPTY, 1, now_ms=1_000)
    assert fold(once, 1, now_ms=2_000) is once


def test_a_warm_reader_waits_for_enough_weight() -> None:
    warm = mark_requested(fold(fold(EMPTY, 1, 0), 2, 0), 1_000)
    one_search = fold(warm, 3, now_ms=100_000)
    assert not should_refresh(one_search, SETTINGS, 100_000)
    assert should_refresh(fold(one_search, 4, now_ms=100_000), SETTINGS, 100_000)


def test_a_little_weight_is_due_after_the_waiting_time() -> None:
    warm = fold(mark_requested(fold(fold(EMPTY, 1, 0), 2, 0), 1_000), 3, now_ms=100_000)
    assert due_at(warm, SETTINGS) == 100_000 + 600_000


def test_no_second_list_within_the_interval() -> None:
    cold = fold(mark_requested(EMPTY, 1_000), 1, now_ms=2_000)
    assert due_at(cold, SETTINGS) == 31_000


def test_a_request_resets_what_waits() -> None:
    assert mark_requested(fold(EMPTY, 1, 5), 9).refresh == RefreshState(requested_at=9)


def test_the_record_round_trips() -> None:
    record = fold(EMPTY, 1, now_ms=1_000)
    assert decode_record(encode_record(record)) == record


def test_pending_forgets_what_was_replaced_or_served() -> None:
    pending = PendingRefreshes()
    a, b = (0, b"a"), (0, b"b")
    pending.note(a, 10)
    pending.note(a, 30)
    pending.note(b, 20)
    assert pending.due(25) == [b]
    pending.note(a, inf)
    assert pending.due(99) == []
    assert len(pending) == 0
