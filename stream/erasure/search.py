"""Looking for a reader in all stores again: whole partitions and files are read, and nothing that the erasure used.

What counts as left is what a reader of the store would still be given: the newest row of a compacted topic, a row of
the vector store, a dead letter, a row of a file. What Kafka's logs still hold of older records is told apart, with the
time by which it is gone.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from schemas.clients.vector_store import UserQueryStore
from schemas.codecs import JSON_CODECS, Codecs
from schemas.config import Config
from schemas.erasure import Erasure, ErasureSearch, StoreName, StoreSearch
from schemas.errors import InvalidRecord, RetryableError
from schemas.names import App, Header, Topic
from schemas.profile import UserProfile
from stream.consumer_lag import committed_offsets
from stream.dead_letter_replay import stored_letters
from stream.erasure.letters import letters_of
from stream.erasure.receipts import COMPACTED, LOGS
from stream.erasure.retention import log_keeping
from stream.erasure.service import checked_id, latest_erasure
from stream.interests import lists, signals
from stream.kafka_access import Broker
from stream.profiles.record import decode_record
from stream.topic_reader import read_topic

_GROUPS = {signals.STAGE: App.SIGNALS, lists.STAGE: App.INTERESTS}
_EVER_MS = 10**14 - 1


async def search_reader(
    config: Config,
    store: UserQueryStore,
    user_id: str,
    *,
    clock_ms: Callable[[], int],
    archive: Path | None = None,
    codecs: Codecs = JSON_CODECS,
    on_step: Callable[[str], None] = lambda step: None,
) -> ErasureSearch:
    """What is left of a reader from before the newest wish; of one whose erasure nobody asked for, everything.

    Raises Unavailable without Kafka. The vector store and the archive may be away: their `left` is null then.
    """
    broker = config.kafka
    on_step("erasures")
    wish = await asyncio.to_thread(latest_erasure, broker, checked_id(user_id), codecs.erasures)
    search = await asyncio.to_thread(_Search, broker, user_id, wish, codecs, clock_ms())
    compacted: tuple[StoreName, ...] = ("profile", "requests", "lists")
    stores = [await asyncio.to_thread(search.compacted, name, on_step) for name in compacted]
    on_step("queries")
    stores.append(await search.queries(store))
    stores.append(await asyncio.to_thread(search.letters, on_step))
    stores.append(await asyncio.to_thread(search.files, archive, on_step))
    stores += [await asyncio.to_thread(search.log, name, on_step) for name in LOGS]
    return ErasureSearch(
        user_id=user_id,
        erased_before=wish.erased_before if wish else None,
        searched_at=clock_ms(),
        clean=all(found.left == 0 for found in stores),
        stores=tuple(stores),
    )


class _Search:
    """One search: each method looks through one store."""

    def __init__(self, broker: Broker, user_id: str, wish: Erasure | None, codecs: Codecs, now_ms: int) -> None:
        self._broker, self._user_id, self._codecs = broker, user_id, codecs
        self._asked = wish is not None
        self._wish = wish or Erasure(user_id=user_id, erased_before=_EVER_MS, requested_at=now_ms)
        self._keeping = log_keeping(broker, {*LOGS.values(), *COMPACTED.values()})
        self._tombstone: Any = None  # the wish's record on the requests

    def compacted(self, name: StoreName, on_step: Callable[[str], None]) -> StoreSearch:
        """By the newest record of the reader; older ones wait to be dropped."""
        on_step(COMPACTED[name])
        records = self._records(COMPACTED[name])
        newest = records[-1] if records else None
        older = [record for record in records[:-1] if record.value is not None]
        left, detail = {"profile": self._in_row, "requests": self._in_request, "lists": self._in_list}[name](
            newest, records
        )
        keeping = self._keeping.get(COMPACTED[name])
        return StoreSearch(
            store=name,
            unit="signals" if name == "profile" else "records",
            left=left,
            waiting=len(older),
            gone_by=keeping.replaced_gone_by(self._wish.requested_at) if keeping and older else None,
            detail=detail,
        )

    async def queries(self, store: UserQueryStore) -> StoreSearch:
        try:
            rows = await store.find_user(self._user_id)
        except RetryableError as error:
            return StoreSearch(store="queries", unit="rows", left=None, detail=str(error))
        old = [row for row in rows if row.generated_at <= self._wish.requested_at]
        return StoreSearch(store="queries", unit="rows", left=len(old))

    def letters(self, on_step: Callable[[str], None]) -> StoreSearch:
        on_step(Topic.DEAD_LETTERS)
        letters = stored_letters(read_topic(self._broker, Topic.DEAD_LETTERS))
        found = letters_of(letters, self._user_id, self._wish.erased_before)
        detail = f"{found.untied} letters hold bytes that cannot be tied to any reader" if found.untied else ""
        return StoreSearch(store="dead_letters", unit="letters", left=len(found.of_reader), detail=detail)

    def files(self, folder: Path | None, on_step: Callable[[str], None]) -> StoreSearch:
        on_step("archive")
        if folder is None or not folder.exists():
            return StoreSearch(store="archive", unit="rows", left=0, detail="there is no archive on this machine")
        from stream.archive.erasing import find_in_archive

        by_topic = find_in_archive(folder, self._user_id, self._wish.erased_before)
        detail = ", ".join(f"{rows} of {topic}" for topic, rows in by_topic.items() if rows)
        return StoreSearch(store="archive", unit="rows", left=sum(by_topic.values()), detail=detail)

    def log(self, name: StoreName, on_step: Callable[[str], None]) -> StoreSearch:
        """Records of before the wish wait for their age; they count as left where the topic keeps them for ever."""
        topic = LOGS[name]
        keeping = self._keeping.get(topic)
        if keeping is None:
            return StoreSearch(store=name, unit="records", left=0, detail="there is no such topic here")
        on_step(topic)
        kept = [row for row in self._records(topic) if row.value and row.timestamp <= self._wish.requested_at]
        gone_by = keeping.written_gone_by(max((row.timestamp for row in kept), default=0)) if kept else None
        for_ever = len(kept) if kept and gone_by is None else 0
        detail = f"{topic} keeps its records for ever: set its retention.ms" if for_ever else ""
        return StoreSearch(
            store=name, unit="records", left=for_ever, waiting=len(kept) - for_ever, gone_by=gone_by, detail=detail
        )

    def _records(self, topic: str) -> list[Any]:
        key = self._user_id.encode()
        return [record for record in read_topic(self._broker, topic, key=key) if record.key == key]

    def _old_signals(self, profile: UserProfile) -> int:
        kept = (*profile.page, *profile.search, *profile.click)
        return sum(signal.occurred_at <= self._wish.erased_before for signal in kept)

    def _in_row(self, newest: Any, records: Sequence[Any]) -> tuple[int, str]:
        profile = UserProfile(self._user_id)
        if newest is not None and newest.value is not None:
            profile = decode_record(newest.value).profile
        left = self._old_signals(profile)
        if self._asked and profile.erased_before < self._wish.erased_before:
            return max(1, left), "the wish is stored and not carried out yet: is `keenstream worker profiles` running?"
        return left, ""

    def _in_request(self, newest: Any, records: Sequence[Any]) -> tuple[int, str]:
        for record in records:
            said = dict(record.headers).get(Header.ERASED_BEFORE, b"")
            if record.value is None and said.isdigit() and int(said) >= self._wish.erased_before:
                self._tombstone = record
        if newest is None or newest.value is None:
            return 0, ""
        try:
            request = self._codecs.requests.decode(newest.value)
        except InvalidRecord:
            return 1, "the newest request does not decode"
        return int(self._old_signals(request.profile) > 0), ""

    def _in_list(self, newest: Any, records: Sequence[Any]) -> tuple[int, str]:
        if behind := self._behind(records):
            return 1, f"not carried out yet by the workers: {', '.join(behind)}"
        if newest is None or newest.value is None:
            return 0, ""
        try:
            return int(self._codecs.lists.decode(newest.value).generated_at <= self._wish.requested_at), ""
        except InvalidRecord:
            return 1, "the newest list does not decode"

    def _behind(self, records: Sequence[Any]) -> list[str]:
        """The workers that have not come to the tombstone: neither by their own tombstones nor by their commits."""
        if self._tombstone is None:
            return []  # nothing was ever asked, or it is long ago
        told = {
            headers.get(Header.STAGE, b"").decode(errors="replace")
            for record in records
            if record.value is None and (headers := dict(record.headers))
            if int(headers.get(Header.ERASED_BEFORE, b"0")) >= self._wish.erased_before
        }
        at = self._tombstone
        committed = committed_offsets(self._broker, list(_GROUPS.values()), at.topic, at.partition)
        return [stage for stage, group in _GROUPS.items() if stage not in told and committed[group] <= at.offset]
