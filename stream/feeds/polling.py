"""A feed or sitemap onto the topic, once or again and again."""

import random
from collections.abc import Callable
from pathlib import Path

import msgspec

from schemas.errors import KeenstreamError, UsageError
from stream.feeds.fetch import NO_VALIDATORS, Fetched, Fetcher
from stream.feeds.formats import Format, format_of, unpacked
from stream.feeds.rows import Outcome
from stream.feeds.rss import read_feed
from stream.feeds.rules import Rules
from stream.feeds.sending import BATCH, Sender
from stream.feeds.sitemap import read_sitemap
from stream.feeds.state import SourceState

INDEX_DEPTH = 2  # an index may name indexes
JITTER = 0.1


class Document(msgspec.Struct, frozen=True):
    """What a document holds: articles, or the addresses of sitemaps."""

    outcomes: tuple[Outcome, ...] = ()
    children: tuple[str, ...] = ()
    whole: bool = True
    remark: str = ""


def read_document(
    body: bytes, rules: Rules, *, address: str, kind: Format | None, max_bytes: int, content_type: str = ""
) -> Document:
    """Raises UsageError, naming `address`, when it is neither a feed nor a sitemap."""
    plain = unpacked(body, max_bytes, address)
    chosen = kind or format_of(plain, address)
    if chosen == "sitemap":
        sitemap = read_sitemap(plain, rules, address=address)
        return Document(sitemap.outcomes, sitemap.children)
    if chosen == "rss":
        feed = read_feed(plain, rules, address=address, content_type=content_type)
        return Document(feed.outcomes, whole=feed.whole, remark=feed.remark)
    raise UsageError(f"{address} is {chosen}, not a feed or sitemap: download it and ingest the file")


class FeedPoller:
    """Polls one feed. Its state is saved after the broker has the articles; what fails is polled whole again."""

    def __init__(
        self,
        fetcher: Fetcher,
        sender: Sender,
        state: SourceState,
        save: Callable[[SourceState], None],
        rules: Rules,
        *,
        kind: Format | None = None,
        max_bytes: int,
    ) -> None:
        self._fetcher, self._sender, self._state, self._save = fetcher, sender, state, save
        self._rules, self._kind, self._max_bytes = rules, kind, max_bytes
        self.remarks: list[str] = []
        self.not_modified = False
        self.failed = 0  # sitemaps of an index

    async def poll(self, address: str) -> None:
        """Send what is new in the document at `address`. Raises what `Fetcher.get`, reading and sending raise."""
        await self._poll(address, INDEX_DEPTH)

    async def read_file(self, path: Path) -> None:
        """The same for a document in a file."""
        body = read_whole(path, self._max_bytes)
        await self._take(self._document(Fetched(address=str(path), body=body), body), str(path), INDEX_DEPTH)
        self._save(self._state)

    async def _poll(self, address: str, depth: int) -> None:
        fetched = await self._fetcher.get(address, self._state.documents.get(address, NO_VALIDATORS))
        if fetched.moved_to:
            self.remarks.append(f"{address} has moved for good: use {fetched.moved_to}")
        if fetched.body is None:
            self.not_modified = True
            return
        document = self._document(fetched, fetched.body)
        await self._take(document, address, depth)
        if document.whole and not document.children:
            self._state.validate(address, fetched.validators)
        self._save(self._state)

    async def _take(self, document: Document, address: str, depth: int) -> None:
        if document.remark:
            self.remarks.append(f"{address}: {document.remark}")
        for first in range(0, len(document.outcomes), BATCH):
            self._sender.take(document.outcomes[first : first + BATCH])
            await self._sender.flush()
        if document.children:
            await self._poll_children(document.children, address, depth)

    def _document(self, fetched: Fetched, body: bytes) -> Document:
        return read_document(
            body,
            self._rules,
            address=fetched.address,
            kind=self._kind,
            max_bytes=self._max_bytes,
            content_type=fetched.content_type,
        )

    async def _poll_children(self, children: tuple[str, ...], address: str, depth: int) -> None:
        """An index is asked for anew each time: what it names may have changed when it has not."""
        if not depth:
            raise UsageError(f"{address}: sitemap indexes within indexes within indexes are not followed")
        for child in children:
            try:
                await self._poll(child, depth - 1)
            except KeenstreamError as error:  # one that is away must not hide the others
                self.failed += 1
                self.remarks.append(str(error))


def read_whole(path: Path, most_bytes: int) -> bytes:
    """Raises UsageError when it cannot be read or is too large."""
    try:
        with path.open("rb") as file:
            body = file.read(most_bytes + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if len(body) > most_bytes:
        raise UsageError(f"{path} is larger than {most_bytes / 2**20:g} MiB: --max-megabytes")
    return body


def next_round_seconds(every_seconds: float, draw: Callable[[], float] = random.random) -> float:
    """With jitter, so that many machines that were started together do not ask together."""
    return every_seconds * (1 - JITTER + 2 * JITTER * draw())
