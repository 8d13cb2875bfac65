"""`keenstream ingest`: articles of feeds, sitemaps and files onto their topic, from where the last run ended."""

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keenstream.commands.console import JSON_OPTION, bytes_progress, console, count_progress, print_json
from schemas.errors import KeenstreamError, UsageError

if TYPE_CHECKING:
    from schemas.config import Config
    from stream.feeds.fetch import Limits
    from stream.feeds.formats import Format
    from stream.feeds.ingestion import Destination, IngestOptions, SourceResult

STATE_FOLDER = "ingest"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def ingest(
    source: Annotated[
        str, typer.Argument(help="A file, the address of a feed or sitemap, or a file that lists feeds (OPML or text).")
    ],
    kind: Annotated[
        str, typer.Option("--format", help="rss, sitemap, mind, jsonl, csv, parquet, huffpost or list; default: seen.")
    ] = "",
    mapping: Annotated[
        list[str] | None, typer.Option("--map", help="FIELD=COLUMN, as often as needed; usual names are known.")
    ] = None,
    undated: Annotated[
        str, typer.Option(help="Without a date since 1990 that is past: `refuse` (files) or `arrival` (feeds, MIND).")
    ] = "",
    expire_from: Annotated[
        str, typer.Option(help="`publication`, or `ingestion` for an archive whose articles should be found now.")
    ] = "publication",
    every: Annotated[str, typer.Option(help="Poll feeds so often, as 90s, 15m or 2h, until Ctrl-C.")] = "",
    restart: Annotated[bool, typer.Option(help="Forget what was sent already.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Say what would be sent, and send nothing.")] = False,
    news: Annotated[Path | None, typer.Option(help="MIND's news.tsv; default: beside behaviors.tsv.")] = None,
    history_until: Annotated[
        str, typer.Option(help="MIND: histories end before this date, as they have none; `none` leaves them out.")
    ] = "2019-11-09",
    ignore_robots: Annotated[bool, typer.Option(help="Do not ask the host's robots.txt.")] = False,
    pause: Annotated[float, typer.Option(min=0, help="Seconds between two requests to one host.")] = 1.0,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that one request may take.")] = 30.0,
    max_megabytes: Annotated[float, typer.Option(min=0.001, help="Of one feed or sitemap, unpacked.")] = 32.0,
    as_json: bool = JSON_OPTION,
) -> None:
    """Send articles to the index (and MIND's behaviors to the readers' events). Run it again at any time: it goes on
    where it ended, also after Ctrl-C, and sends of a feed what is new or changed.

    Example: `keenstream ingest https://news.example/rss.xml --every 15m`, or `keenstream ingest news.csv --map
    title=headline`
    """
    from keenstream.settings import resolve_config

    config = resolve_config()
    options = _options(
        config,
        format=_format(kind),
        mapping=_mapping(mapping),
        undated=_one_of(undated, ("refuse", "arrival"), "--undated") if undated else None,
        expires_at_ms=_expiry(expire_from, config),
        restart=restart,
        dry_run=dry_run,
        news=news,
        history_until_ms=_history_until(history_until),
        limits=_limits(timeout, max_megabytes, pause, ignore_robots),
    )
    run = _Run(source, options, config, parse_duration(every) if every else None, as_json)
    asyncio.run(run.until_done())
    run.finish()


def parse_duration(text: str) -> float:
    """Seconds of `90s`, `15m`, `2h` or `1d`; raises UsageError."""
    match = _DURATION.fullmatch(text.strip())
    if not match or not (seconds := float(match[1]) * _SECONDS[match[2]]):
        raise UsageError(f"--every {text}: write a number and s, m, h or d, as in 15m")
    return seconds


class _Run:
    """One command: what kind of source it is, where it goes, and what is printed."""

    def __init__(
        self, source: str, options: "IngestOptions", config: "Config", every_seconds: float | None, as_json: bool
    ) -> None:
        from stream.feeds.addresses import is_web
        from stream.feeds.formats import DOCUMENTS, recognise

        self._options, self._config, self._every, self._as_json = options, config, every_seconds, as_json
        self._path = None if is_web(source) else Path(source)
        if self._path is None and "://" not in source:
            raise UsageError(f"{source} is neither a file nor an address")
        if "://" in source and self._path:
            raise UsageError(f"{source}: only http and https addresses are fetched")
        self._kind: Format | None = options.format or (recognise(self._path) if self._path else None)
        self._addresses = [source] if self._path is None else []
        if self._path and self._kind == "list":
            self._addresses, self._path = _listed(self._path, options.limits.max_bytes), None
        self._is_document = self._path is not None and self._kind in DOCUMENTS
        if every_seconds and self._path:
            raise UsageError(f"--every is for feeds; {source} is a file")
        self.results: list[SourceResult] = []

    async def until_done(self) -> None:
        from stream.feeds.fetch import Fetcher

        sends_events = self._kind == "mind"
        async with (
            _destination(self._config, self._options, events=sends_events) as destination,
            Fetcher(self._options.limits) as fetcher,
        ):
            await self._rounds(destination, fetcher)

    async def _rounds(self, destination: "Destination", fetcher: Any) -> None:
        from stream.feeds.polling import next_round_seconds

        while True:
            self.results = await self._round(destination, fetcher)
            if self._every is None:
                return
            self._print()
            await asyncio.sleep(next_round_seconds(self._every))

    async def _round(self, destination: "Destination", fetcher: Any) -> "list[SourceResult]":
        from stream.feeds.ingestion import ingest_document, ingest_feeds, ingest_file

        if self._path is None:
            with count_progress() as progress:
                task = progress.add_task("feeds", total=len(self._addresses))
                done: Callable[[Any], None] = lambda result: progress.advance(task)  # noqa: E731
                return await ingest_feeds(self._addresses, self._feed_options(), destination, fetcher, done)
        assert self._kind is not None
        if self._is_document:
            return [await ingest_document(self._path, self._kind, self._options, destination, fetcher)]
        with _file_progress(self._path, self._kind) as at:
            return [await ingest_file(self._path, self._kind, self._options, destination, at)]

    def _feed_options(self) -> "IngestOptions":
        from msgspec.structs import replace

        return replace(self._options, format=None) if self._options.format == "list" else self._options

    def _print(self) -> None:
        if self._as_json:
            print_json(self.results if len(self.results) != 1 else self.results[0])
            return
        for result in self.results:
            _print_result(result, self._options.dry_run)
            if result.error and (len(self.results) > 1 or self._every):  # else it is how the command ends
                console.print(f"  failed: {result.error}", markup=False)

    def finish(self) -> None:
        """Print, and raise KeenstreamError when a source failed or held nothing but bad lines."""
        self._print()
        failed = [result for result in self.results if result.error]
        if len(failed) == 1 == len(self.results):
            raise KeenstreamError(failed[0].error)
        if failed:
            raise KeenstreamError(f"{len(failed)} of {len(self.results)} feeds failed; what became of each is above")
        for result in self.results:
            if result.tally.bad and not _useful(result):
                raise KeenstreamError(f"{result.source} holds no article that can be sent; the first reason is above")


def _useful(result: "SourceResult") -> bool:
    tally = result.tally
    return bool(tally.sent or tally.unchanged or tally.other_language or result.resumed_rows)


def _print_result(result: "SourceResult", dry_run: bool) -> None:
    tally, verb = result.tally, "would be sent" if dry_run else "sent"
    if result.resumed_rows:
        console.print(f"went on behind row {result.resumed_rows:,} (--restart begins anew)", markup=False)
    state = "not modified, " if result.not_modified else ""
    console.print(f"{result.source}: {state}{tally.sent:,} {verb} in {result.seconds:.1f} s", markup=False)
    for count, what in (
        (tally.unchanged, "known already"),
        (tally.bad, "bad, not sent"),
        (tally.other_language, "in a language that is not wanted (profiles.languages)"),
        (tally.no_news, "without news data"),
        (tally.without_consent, "without consent, which are never stored"),
        (tally.redated, "without a date since 1990 that is not ahead: dated to when they were read"),
        (tally.mended, "in another encoding than they claim: read all the same"),
    ):
        if count:
            console.print(f"  {count:,} {what}")
    for remark in result.remarks:
        console.print(f"  {remark}", markup=False)
    for reason in tally.first_bad:
        console.print(f"  row {reason}", markup=False)
    if tally.bad > len(tally.first_bad):
        console.print(f"  and {tally.bad - len(tally.first_bad):,} more")
    for article in result.samples if dry_run else ():
        console.print(f"  {article.article_id}  {article.title}  {article.url}", markup=False)


def _one_of(value: str, allowed: tuple[str, ...], option: str) -> Any:
    if value not in allowed:
        raise typer.BadParameter(f"say {' or '.join(f'`{name}`' for name in allowed)}", param_hint=option)
    return value


def _format(kind: str) -> Any:
    from stream.feeds.formats import FORMATS

    return _one_of(kind, FORMATS, "--format") if kind else None


def _mapping(options: list[str] | None) -> dict[str, str]:
    from stream.feeds.columns import parse_mapping

    return parse_mapping(options or [])


def _expiry(expire_from: str, config: "Config") -> int | None:
    """UTC ms of all articles; None = each by its publication."""
    if _one_of(expire_from, ("publication", "ingestion"), "--expire-from") == "publication":
        return None
    return int((time.time() + config.articles.ttl_seconds) * 1000)


def _limits(seconds: float, megabytes: float, pause: float, ignore_robots: bool) -> "Limits":
    from stream.feeds.fetch import Limits

    return Limits(seconds=seconds, max_bytes=int(megabytes * 2**20), pause_seconds=pause, robots=not ignore_robots)


def _history_until(text: str) -> int | None:
    from schemas.errors import InvalidRecord
    from stream.feeds.dates import parse_date

    if text == "none":
        return None
    try:
        return parse_date(text)
    except InvalidRecord as error:
        raise UsageError(f"--history-until {text}: write a date as 2019-11-09, or none") from error


def _options(config: "Config", **chosen: Any) -> "IngestOptions":
    from keenstream.stack.folders import state_folder
    from stream.feeds.ingestion import IngestOptions

    return IngestOptions(folder=state_folder() / STATE_FOLDER, languages=config.profiles.languages, **chosen)


def _listed(path: Path, most_bytes: int) -> list[str]:
    from stream.feeds.formats import list_of_feeds
    from stream.feeds.polling import read_whole

    return list_of_feeds(read_whole(path, most_bytes), str(path))


@contextmanager
def _file_progress(path: Path, kind: "Format") -> "Iterator[Callable[[Any], None]]":
    from stream.feeds.files import end_of, rows_are_counted

    in_rows = rows_are_counted(kind)
    with count_progress() if in_rows else bytes_progress() as progress:
        task = progress.add_task(path.name, total=end_of(path, kind))
        yield lambda position: progress.update(task, completed=position.rows if in_rows else position.bytes)


def _destination(config: "Config", options: "IngestOptions", *, events: bool) -> Any:
    from keenstream.ingest_destination import destination

    return destination(config, dry_run=options.dry_run, events=events)
