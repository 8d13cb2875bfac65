"""`keenstream send`: a file of events onto its topic; and a whole file of articles, for the demo and the benchmarks."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from keenstream.commands.console import JSON_OPTION, bytes_progress, console, print_json
from schemas.errors import KeenstreamError

BATCH = 1_000
SHOWN_BAD_LINES = 10


class FeedResult(msgspec.Struct):
    """What became of a file."""

    sent: int = 0
    bad: int = 0
    without_consent: int = 0  # events that may not be stored, so they are not sent
    first_bad: list[str] = msgspec.field(default_factory=list)
    seconds: float = 0.0


def send(
    file: Annotated[Path, typer.Argument(help="JSON Lines, one event a line.")],
    as_json: bool = JSON_OPTION,
) -> None:
    """Send a file of events. A broken line is reported with its number and the rest goes on.

    Example: `keenstream send events.jsonl`
    """
    from keenstream.settings import resolve_config

    _report(send_file(file, resolve_config()), "events", as_json)


def send_file(file: Path, config: Any) -> FeedResult:
    """Send the events of `file`; broken lines are counted."""
    from schemas.codecs import open_codecs
    from schemas.names import Topic
    from stream.feeds.jsonl import read_events
    from stream.producer import Outgoing

    codec = open_codecs(config, writes=(Topic.USER_EVENTS,)).events

    def outgoing(event: Any) -> Outgoing | None:
        if not event.consent:
            return None
        return Outgoing(Topic.USER_EVENTS, event.user_id.encode(), codec.encode(event))

    return asyncio.run(_publish(file, read_events(file), outgoing, config.kafka))


def ingest_file(source: Path, config: Any, *, keep: bool = False) -> FeedResult:
    """Send all articles of `source`, sent before or not; with `keep` they expire only the usual time after now."""
    from schemas.codecs import open_codecs
    from schemas.names import Topic
    from stream.feeds.jsonl import read_articles
    from stream.producer import Outgoing

    codec = open_codecs(config, writes=(Topic.ARTICLES,)).articles
    expires_at = int((time.time() + config.articles.ttl_seconds) * 1000) if keep else None

    def outgoing(article: Any) -> Outgoing:
        row = msgspec.structs.replace(article, expires_at=expires_at) if expires_at else article
        return Outgoing(Topic.ARTICLES, article.article_id.encode(), codec.encode(row))

    return asyncio.run(_publish(source, read_articles(source), outgoing, config.kafka))


async def _publish(file: Path, lines: Iterator[Any], outgoing: Callable[[Any], Any], broker: Any) -> FeedResult:
    from stream.feeds.jsonl import BadLine
    from stream.producer import KafkaProducer

    result, started = FeedResult(), time.monotonic()
    with bytes_progress() as progress:
        task = progress.add_task(file.name, total=file.stat().st_size if file.exists() else None)
        batch: list[Any] = []
        async with KafkaProducer(broker) as producer:
            for line in lines:
                progress.advance(task, line.size_bytes)
                if isinstance(line.row, BadLine):
                    _note_bad(result, line.row)
                    continue
                if (message := outgoing(line.row)) is None:
                    result.without_consent += 1
                    continue
                batch.append(message)
                if len(batch) == BATCH:
                    await producer.send(batch)
                    result.sent += len(batch)
                    batch = []
            await producer.send(batch)
            result.sent += len(batch)
    result.seconds = time.monotonic() - started
    return result


def _note_bad(result: FeedResult, line: Any) -> None:
    result.bad += 1
    if len(result.first_bad) < SHOWN_BAD_LINES:
        result.first_bad.append(f"line {line.number}: {line.reason}")


def _report(result: FeedResult, what: str, as_json: bool) -> None:
    if as_json:
        print_json(result)
    else:
        console.print(f"{result.sent:,} {what} sent in {result.seconds:.1f} s, {result.bad:,} lines not sent")
        if result.without_consent:
            console.print(f"  and {result.without_consent:,} without consent, which are never stored")
        for reason in result.first_bad:
            console.print(f"  {reason}", markup=False)
        if result.bad > SHOWN_BAD_LINES:
            console.print(f"  and {result.bad - SHOWN_BAD_LINES:,} more")
    if result.bad and not result.sent and not result.without_consent:
        raise KeenstreamError(f"no line of the file holds one of the {what}; the first reason is above")
