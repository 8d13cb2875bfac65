"""When a reader's query list is written anew (near-line, as in the paper's deployment; the cadence is ours)."""

from math import inf

import msgspec

from schemas.config import Refresh
from schemas.event import Event, Kind
from schemas.profile import fold_event, signal_count
from stream.profiles.record import ProfileRecord, RefreshState


def fold_record(
    record: ProfileRecord, event: Event, *, settings: Refresh, signals_per_domain: int, now_ms: int, accepted_at: int
) -> ProfileRecord:
    """`record` with `event` in it and its weight counted; the very same object when the event changes nothing."""
    profile = fold_event(record.profile, event, signals_per_domain=signals_per_domain)
    if profile is record.profile:
        return record
    state = record.refresh
    return ProfileRecord(
        profile,
        RefreshState(
            state.requested_at,
            state.waiting_weight + _weight(event.kind, settings),
            state.waiting_since or now_ms,
            max(state.accepted_at, accepted_at),
        ),
    )


def due_at(record: ProfileRecord, settings: Refresh) -> float:
    """UTC ms from which a new list is due; infinite when nothing is new.

    Enough new weight, or a cold reader: at once, but not within the interval after the last request. Less: once the
    first of it has waited `pending_seconds`.
    """
    state = record.refresh
    if state.waiting_weight <= 0:
        return inf
    rested = state.requested_at + settings.interval_seconds * 1000 if state.requested_at else 0.0
    cold = signal_count(record.profile) <= settings.cold_signals
    if cold or state.waiting_weight >= settings.threshold:
        return rested
    return max(rested, state.waiting_since + settings.pending_seconds * 1000)


def should_refresh(record: ProfileRecord, settings: Refresh, now_ms: int) -> bool:
    return due_at(record, settings) <= now_ms


def mark_requested(record: ProfileRecord, now_ms: int) -> ProfileRecord:
    """`record` after its request was sent: nothing waits any more."""
    return msgspec.structs.replace(record, refresh=RefreshState(requested_at=now_ms))


def _weight(kind: Kind, settings: Refresh) -> float:
    return {"page": settings.page_weight, "search": settings.search_weight, "click": settings.click_weight}[kind]
