"""Erasing one reader: the wish first, then what the workers make of it, dead letters, files, and the receipt."""

import asyncio
import time
from collections.abc import Callable

import msgspec

from schemas.clients.vector_store import StoredSlot, UserQueryStore
from schemas.codec import ERASURES, Codec
from schemas.codecs import JSON_CODECS, Codecs
from schemas.config import Config
from schemas.erasure import Erasure, ErasureReceipt, StoreReceipt
from schemas.errors import RetryableError, UsageError
from schemas.event import Identifier
from schemas.names import Topic
from stream.dead_letter_replay import removal, stored_letters
from stream.erasure.letters import letters_of
from stream.erasure.progress import Progress
from stream.erasure.receipts import COMPACTED, LOGS, LettersRemoved, Seen, receipt
from stream.erasure.retention import LogKeeping, log_keeping
from stream.erasure.tail import Tail
from stream.kafka_access import Broker
from stream.producer import Outgoing, Producer
from stream.topic_reader import read_topic

ONLINE_SECONDS = 10.0  # a wait for the workers; idle ones need less than two
_FOLLOWED = (Topic.PROFILES_CHANGELOG, Topic.QUERY_REQUESTS, Topic.QUERY_LISTS)
_POLL_SECONDS = 0.2
_FILES_LATER = "the archive worker rewrites the files when it reads the wish; `keenstream erase --verify` searches them"

# erases files of the archive: user_id and erased_before (UTC ms) in, what became of them out
EraseArchive = Callable[[str, int], StoreReceipt]
ARCHIVE_LATER = StoreReceipt(store="archive", state="under way", unit="rows", detail=_FILES_LATER)


class EraseService:
    """Used by the command and by the API. Parts are passed in and closed by whoever made them."""

    def __init__(
        self,
        config: Config,
        store: UserQueryStore,
        producer: Producer,
        clock_ms: Callable[[], int],
        *,
        erase_archive: EraseArchive | None = None,
        codecs: Codecs = JSON_CODECS,
    ) -> None:
        self._broker = config.kafka
        self._store = store
        self._producer = producer
        self._clock_ms = clock_ms
        self._erase_archive = erase_archive
        self._codec = codecs.erasures

    async def erase(
        self,
        user_id: str,
        *,
        before_ms: int | None = None,
        wait_seconds: float = ONLINE_SECONDS,
        on_step: Callable[[str], None] = lambda step: None,
    ) -> ErasureReceipt:
        """Erase what is known of a reader up to `before_ms` (UTC, inclusive; now by default); what came of it.

        Once the wish is stored the workers carry it out, whatever becomes of this call. Repeatable. Raises Unavailable
        without Kafka, and UsageError for what cannot be an id, or a time in the future.
        """
        on_step("asking")
        started, user_id = time.monotonic(), checked_id(user_id)
        erased_before = await self._erased_before(user_id, before_ms) if before_ms is not None else None
        async with Tail(self._broker, _FOLLOWED, user_id.encode()) as tail:
            rows_before = await self._rows(user_id)
            progress = await self._ask(user_id, erased_before)
            on_step("waiting for the workers")
            deadline = started + wait_seconds
            await self._follow(tail, progress, deadline)
            found = progress.signals_found
            if before_ms is None and progress.newest_signal() > self._clock_ms():
                # of a producer whose clock is ahead: what has not happened yet was sent before the wish
                progress = await self._ask(user_id, progress.newest_signal())
                await self._follow(tail, progress, deadline)
                found += progress.signals_found
        rows_after = await self._rows(user_id)
        online_seconds = time.monotonic() - started
        on_step("dead letters")
        until = self._clock_ms() if before_ms is None else progress.erasure.erased_before
        letters = await self._remove_letters(user_id, until)
        on_step("archive")
        seen = Seen(
            progress=progress,
            signals_found=found,
            rows_before=rows_before,
            rows_after=rows_after,
            letters=letters,
            archive=await self._files(progress.erasure),
            keeping=await self._keeping(),
            online_seconds=online_seconds,
            answered_at=self._clock_ms(),
        )
        return receipt(seen)

    async def _erased_before(self, user_id: str, before_ms: int) -> int:
        """Never earlier than an earlier erasure: the topic keeps only the newest wish of a reader."""
        if before_ms > self._clock_ms():
            raise UsageError("an erasure cannot reach into the future: name a time that has passed, or none for now")
        earlier = await asyncio.to_thread(latest_erasure, self._broker, user_id, self._codec)
        return max(before_ms, earlier.erased_before if earlier else 0)

    async def _ask(self, user_id: str, erased_before: int | None) -> Progress:
        now_ms = self._clock_ms()
        erased_before = now_ms if erased_before is None else erased_before
        erasure = Erasure(user_id=user_id, erased_before=erased_before, requested_at=now_ms)
        await self._producer.send([Outgoing(Topic.ERASURES, user_id.encode(), self._codec.encode(erasure))])
        return Progress(erasure)

    async def _follow(self, tail: Tail, progress: Progress, deadline: float) -> None:
        while not progress.done and time.monotonic() < deadline:
            for record in await tail.records(_POLL_SECONDS):
                progress.take(record, self._clock_ms())

    async def _rows(self, user_id: str) -> tuple[StoredSlot, ...] | None:
        try:
            return await self._store.find_user(user_id)
        except RetryableError:
            return None

    async def _remove_letters(self, user_id: str, until_ms: int) -> LettersRemoved:
        """After the workers came to the tombstone: what they refuse of the reader before it is a letter by then."""
        try:
            letters = await asyncio.to_thread(lambda: stored_letters(read_topic(self._broker, Topic.DEAD_LETTERS)))
            found = letters_of(letters, user_id, until_ms)
            await self._producer.send([message for stored in found.of_reader for message in removal(stored)])
        except RetryableError as error:
            return LettersRemoved(removed=0, untied=0, at=self._clock_ms(), failure=f"{error}; then erase again")
        return LettersRemoved(removed=len(found.of_reader), untied=found.untied, at=self._clock_ms())

    async def _files(self, erasure: Erasure) -> StoreReceipt:
        if self._erase_archive is None:
            return ARCHIVE_LATER
        return await asyncio.to_thread(self._erase_archive, erasure.user_id, erasure.erased_before)

    async def _keeping(self) -> dict[str, LogKeeping]:
        try:
            return await asyncio.to_thread(log_keeping, self._broker, {*LOGS.values(), *COMPACTED.values()})
        except RetryableError:
            return {}


def checked_id(user_id: str) -> str:
    """`user_id`, or UsageError: what cannot be an id of ours is stored nowhere."""
    try:
        return msgspec.convert(user_id, Identifier)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"this cannot be a reader's id ({error}): 1 to 128 characters, none of them control"
        ) from error


def latest_erasure(broker: Broker, user_id: str, codec: Codec[Erasure] = ERASURES) -> Erasure | None:
    """The newest wish of a reader. Reads one partition of a small topic. Raises Unavailable."""
    key, found = user_id.encode(), None
    for record in read_topic(broker, Topic.ERASURES, key=key):
        if record.key == key:
            found = codec.decode(record.value) if record.value is not None else None
    return found
