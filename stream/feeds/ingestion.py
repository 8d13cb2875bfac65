"""One run over a source: its state, its lock, its records, and what became of them."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from schemas.article import Article
from schemas.codecs import Codecs
from schemas.errors import KeenstreamError
from stream.clock import now_ms
from stream.feeds.fetch import Fetcher, Limits
from stream.feeds.files import FileOptions, deliver_file, open_reader, resume
from stream.feeds.formats import Format
from stream.feeds.mind import HISTORY_UNTIL_MS
from stream.feeds.polling import FeedPoller
from stream.feeds.rows import Position
from stream.feeds.rules import Rules, Undated
from stream.feeds.sending import Seen, Sender, Tally
from stream.feeds.state import SourceState, StateFile
from stream.producer import Outgoing, Producer

FEEDS_AT_ONCE = 8


class IngestOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator asked for."""

    folder: Path  # of the states
    format: Format | None = None
    mapping: Mapping[str, str] = msgspec.field(default_factory=dict)
    undated: Undated | None = None
    languages: tuple[str, ...] = ("en",)
    expires_at_ms: int | None = None  # of all articles, instead of by their publication
    restart: bool = False
    dry_run: bool = False
    news: Path | None = None
    history_until_ms: int | None = HISTORY_UNTIL_MS
    limits: Limits = Limits()

    def variant(self) -> str:
        """A file that is read by another mapping is another source."""
        return f"{self.format}\n{sorted(self.mapping.items())}\n{self.undated}\n{self.history_until_ms}"


class SourceResult(msgspec.Struct, kw_only=True):
    """What became of a source in this run."""

    source: str
    tally: Tally
    seconds: float
    resumed_rows: int = 0  # of a file, that an earlier run had sent
    not_modified: bool = False
    remarks: list[str] = msgspec.field(default_factory=list)
    error: str = ""
    samples: list[Article] = msgspec.field(default_factory=list)


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    producer: Producer
    codecs: Codecs
    cluster: str  # id of the Kafka cluster; a state that is of another one does not count


class Nowhere(Producer):
    """For a dry run."""

    async def send(self, messages: Sequence[Outgoing]) -> None:
        """Nothing."""


async def ingest_file(
    path: Path,
    kind: Format,
    options: IngestOptions,
    destination: Destination,
    on_position: Callable[[Position], None] = lambda position: None,
) -> SourceResult:
    """Send the rows of a file that were not sent yet. Raises UsageError before anything is sent when the file is not
    as it must be, and Unavailable when the broker is away: what it has is not sent again."""
    started, now = time.monotonic(), now_ms()
    file = StateFile(options.folder, str(path.absolute()), options.variant())
    with file.locked():
        state = _state(file, options, destination.cluster)
        resume(path, state, now)
        read = open_reader(path, _file_options(kind, options), now, state.started_ms)
        resumed = state.position.rows
        seen: dict[str, Seen] = {}
        sender = _sender(destination, seen, options, now)
        await deliver_file(path, read, sender, state, _saving(file, options), on_position)
    return SourceResult(
        source=str(path),
        tally=sender.tally,
        seconds=time.monotonic() - started,
        resumed_rows=resumed,
        samples=sender.samples,
    )


async def ingest_document(
    path: Path, kind: Format, options: IngestOptions, destination: Destination, fetcher: Fetcher
) -> SourceResult:
    """The same for a feed or sitemap in a file."""

    async def read(poller: FeedPoller) -> None:
        await poller.read_file(path)

    chosen = msgspec.structs.replace(options, format=kind)
    return await _with_poller(str(path.absolute()), read, chosen, destination, fetcher)


async def ingest_feeds(
    addresses: Sequence[str],
    options: IngestOptions,
    destination: Destination,
    fetcher: Fetcher,
    on_done: Callable[[SourceResult], None] = lambda result: None,
) -> list[SourceResult]:
    """Send what is new in each feed; one that fails has `error` in its result and does not stop the others."""
    places = asyncio.Semaphore(FEEDS_AT_ONCE)

    async def one(address: str) -> SourceResult:
        async with places:
            result = await ingest_feed(address, options, destination, fetcher)
        on_done(result)
        return result

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(address)) for address in addresses]
    return [task.result() for task in tasks]


async def ingest_feed(address: str, options: IngestOptions, destination: Destination, fetcher: Fetcher) -> SourceResult:
    """Send what is new in a feed; a failure is in the result."""

    async def poll(poller: FeedPoller) -> None:
        await poller.poll(address)

    return await _with_poller(address, poll, options, destination, fetcher)


async def _with_poller(
    source: str,
    run: Callable[[FeedPoller], Awaitable[None]],
    options: IngestOptions,
    destination: Destination,
    fetcher: Fetcher,
) -> SourceResult:
    started, now = time.monotonic(), now_ms()
    file = StateFile(options.folder, source, options.variant())
    result = SourceResult(source=source, tally=Tally(), seconds=0.0)
    try:
        with file.locked():
            state = _state(file, options, destination.cluster)
            sender = _sender(destination, state.seen, options, now)
            result.tally = sender.tally
            rules = Rules(now_ms=now, languages=options.languages, undated=options.undated or "arrival")
            save, most = _saving(file, options), options.limits.max_bytes
            poller = FeedPoller(fetcher, sender, state, save, rules, kind=options.format, max_bytes=most)
            result.remarks, result.samples = poller.remarks, sender.samples
            await run(poller)
            result.not_modified = poller.not_modified
            result.error = f"{poller.failed} sitemaps of the index failed" if poller.failed else ""
    except KeenstreamError as error:
        result.error = str(error)
    result.seconds = time.monotonic() - started
    return result


def _state(file: StateFile, options: IngestOptions, cluster: str) -> SourceState:
    state = file.load()
    if options.restart or (cluster and state.cluster != cluster):
        state = SourceState(source=state.source)
    state.cluster = cluster
    return state


def _saving(file: StateFile, options: IngestOptions) -> Callable[[SourceState], None]:
    return (lambda state: None) if options.dry_run else file.save


def _sender(destination: Destination, seen: dict[str, Seen], options: IngestOptions, now: int) -> Sender:
    return Sender(
        destination.producer, seen, now_ms=now, expires_at_ms=options.expires_at_ms, codecs=destination.codecs
    )


def _file_options(kind: Format, options: IngestOptions) -> FileOptions:
    return FileOptions(
        format=kind,
        mapping=options.mapping,
        undated=options.undated,
        languages=options.languages,
        news=options.news,
        history_until_ms=options.history_until_ms,
    )
