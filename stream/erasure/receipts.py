"""The receipt, store by store, from what an erasure saw. Pure."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from schemas.clients.vector_store import StoredSlot
from schemas.erasure import ErasureReceipt, StoreName, StoreReceipt, StoreState, is_done
from schemas.names import Topic
from stream.erasure.progress import Progress
from stream.erasure.retention import LogKeeping

LOGS: Mapping[StoreName, str] = {
    "events": Topic.USER_EVENTS,
    "exposures": Topic.EXPOSURES,
    "outcomes": Topic.OUTCOMES,
    "fresh_matches": Topic.FRESH_MATCHES,
}
COMPACTED: Mapping[StoreName, str] = {
    "profile": Topic.PROFILES_CHANGELOG,
    "requests": Topic.QUERY_REQUESTS,
    "lists": Topic.QUERY_LISTS,
    "dead_letters": Topic.DEAD_LETTERS,
}
_NOT_COUNTED = "counted by `erase --verify`, which reads the whole partition"
_WORKERS = {"profile": "profiles", "requests": "profiles"}


class LettersRemoved(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the dead letters. `untied` hold bytes that cannot be tied to any reader."""

    removed: int
    untied: int
    at: int  # UTC ms
    failure: str = ""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that an erasure saw."""

    progress: Progress
    signals_found: int
    rows_before: Sequence[StoredSlot] | None  # None = the vector store did not answer
    rows_after: Sequence[StoredSlot] | None
    letters: LettersRemoved
    archive: StoreReceipt
    keeping: Mapping[str, LogKeeping]
    online_seconds: float
    answered_at: int  # UTC ms


def receipt(seen: Seen) -> ErasureReceipt:
    stores = (*_online(seen), _letters(seen), seen.archive, *_logs(seen))
    erasure = seen.progress.erasure
    return ErasureReceipt(
        user_id=erasure.user_id,
        erased_before=erasure.erased_before,
        requested_at=erasure.requested_at,
        answered_at=seen.answered_at,
        online_seconds=round(seen.online_seconds, 3),
        found_anything=any(store.found for store in stores),
        complete=all(map(is_done, stores)),
        stores=stores,
    )


def is_online(store: StoreReceipt) -> bool:
    """Whether readers are served from it."""
    return store.store in ("profile", "requests", "lists", "queries")


def _online(seen: Seen) -> Iterator[StoreReceipt]:
    progress = seen.progress
    yield _compacted(seen, "profile", "signals", progress.profile_at, seen.signals_found)
    yield _compacted(seen, "requests", "records", progress.requests_at)
    yield _compacted(seen, "lists", "records", progress.lists_at)
    yield _queries(seen)


def _compacted(seen: Seen, store: StoreName, unit: str, clean_at: int | None, found: int | None = None) -> StoreReceipt:
    """A topic whose newest record counts: clean once that is the erasure's."""
    keeping = seen.keeping.get(COMPACTED[store])
    if clean_at is None:
        return StoreReceipt(store=store, state="under way", unit=unit, detail=_waits(seen.progress, store))
    return StoreReceipt(
        store=store,
        state="clean",
        unit=unit,
        found=found,
        removed=found,
        at=clean_at,
        gone_by=keeping.replaced_gone_by(clean_at) if keeping else None,
        detail="" if found is not None else _NOT_COUNTED,
    )


def _waits(progress: Progress, store: StoreName) -> str:
    wanted = _WORKERS.get(store) or (", ".join(sorted(progress.waits_for)) if progress.requests_at else "profiles")
    return (
        f"the wish is stored and will be carried out; waiting for the workers: {wanted} "
        "(`keenstream worker NAME`); `keenstream erase --verify` tells when it is done"
    )


def _queries(seen: Seen) -> StoreReceipt:
    """Rows of a reader who has come back since are not of before the erasure."""
    progress, after = seen.progress, seen.rows_after
    before = None if seen.rows_before is None else len(seen.rows_before)
    old = None if after is None else sum(_is_old(row, progress) for row in after)
    counted = StoreReceipt(
        store="queries",
        state="clean",
        unit="rows",
        found=before,
        removed=None if before is None or old is None else max(0, before - old),
        at=progress.lists_at,
    )
    if old is None:
        return _but(counted, "under way", "the vector store did not answer; the workers go on when it does")
    if progress.lists_at is None:
        return _but(counted, "under way", _waits(progress, "queries"))
    return _but(counted, "left", f"{old} rows are still found by the reader's id: erase again") if old else counted


def _but(counted: StoreReceipt, state: StoreState, detail: str) -> StoreReceipt:
    return msgspec.structs.replace(counted, state=state, detail=detail, at=None)


def _is_old(row: StoredSlot, progress: Progress) -> bool:
    return row.generated_at <= progress.erasure.requested_at


def _letters(seen: Seen) -> StoreReceipt:
    letters, keeping = seen.letters, seen.keeping.get(Topic.DEAD_LETTERS)
    if letters.failure:
        return StoreReceipt(store="dead_letters", state="left", unit="letters", detail=letters.failure)
    detail = f"{letters.untied} letters hold bytes that cannot be tied to any reader; age removes them"
    return StoreReceipt(
        store="dead_letters",
        state="clean",
        unit="letters",
        found=letters.removed,
        removed=letters.removed,
        at=letters.at,
        gone_by=keeping.replaced_gone_by(letters.at) if keeping and letters.removed else None,
        detail=detail if letters.untied else "",
    )


def _logs(seen: Seen) -> Iterator[StoreReceipt]:
    for store, topic in LOGS.items():
        keeping = seen.keeping.get(topic)
        if keeping is None:
            yield StoreReceipt(store=store, state="absent", unit="records")
        elif gone_by := keeping.written_gone_by(seen.progress.erasure.requested_at):
            yield StoreReceipt(store=store, state="kept", unit="records", gone_by=gone_by)
        else:
            detail = f"{topic} keeps its records for ever: set its retention.ms"
            yield StoreReceipt(store=store, state="left", unit="records", detail=detail)
