"""A file of articles, or of MIND's clicks, onto its topic, from where the last run ended."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from schemas.errors import UsageError
from stream.feeds.formats import Format
from stream.feeds.jsonl import jsonl_columns, read_json_lines
from stream.feeds.line_files import is_packed, open_bytes
from stream.feeds.mind import HISTORY_UNTIL_MS, Reading, is_behaviors, read_behaviors, read_news, read_titles
from stream.feeds.rows import START, Position, Step
from stream.feeds.rules import Rules, Undated
from stream.feeds.sending import Sender
from stream.feeds.state import SourceState, prefix_of
from stream.feeds.tables import csv_columns, parquet_columns, parquet_rows, read_csv, read_parquet


class FileOptions(msgspec.Struct, frozen=True, kw_only=True):
    format: Format
    mapping: Mapping[str, str] = msgspec.field(default_factory=dict)
    undated: Undated | None = None  # None: refuse, but in MIND's form, which has no dates
    languages: tuple[str, ...] = ("en",)
    news: Path | None = None  # MIND's news.tsv; None = beside behaviors.tsv
    history_until_ms: int | None = HISTORY_UNTIL_MS

    def rules(self, now_ms: int, arrived_ms: int) -> Rules:
        undated = self.undated or "refuse"
        return Rules(now_ms=now_ms, arrived_ms=arrived_ms, languages=self.languages, undated=undated)


Reader = Callable[[Position], Iterator[Step]]


def open_reader(path: Path, options: FileOptions, now_ms: int, arrived_ms: int = 0) -> Reader:
    """What reads the file from a position on. Everything that the header or the schema tells is checked here, before
    anything is sent: raises UsageError naming the file and the column."""
    rules, undated = options.rules(now_ms, arrived_ms), options.undated == "arrival"
    match options.format:
        case "huffpost":
            return lambda start: read_json_lines(path, None, rules, start)
        case "jsonl":
            keys = jsonl_columns(path, options.mapping, undated=undated)
            return lambda start: read_json_lines(path, keys, rules, start)
        case "csv":
            columns = csv_columns(path, options.mapping, undated=undated)
            return lambda start: read_csv(path, columns, rules, start)
        case "parquet":
            columns = parquet_columns(path, options.mapping, undated=undated)
            return lambda start: read_parquet(path, columns, rules, start)
        case "mind":
            return _mind_reader(path, options, rules)
    raise UsageError(f"{path}: {options.format} is not a format of rows")


def rows_are_counted(kind: Format) -> bool:
    """Whether progress is in rows; otherwise it is in bytes."""
    return kind == "parquet"


def end_of(path: Path, kind: Format) -> int | None:
    """The position of the end, in rows or bytes; None when it is not known before."""
    if rows_are_counted(kind):
        return parquet_rows(path)
    return None if is_packed(path) else path.stat().st_size


async def deliver_file(
    path: Path,
    read: Reader,
    sender: Sender,
    state: SourceState,
    save: Callable[[SourceState], None],
    on_position: Callable[[Position], None] = lambda position: None,
) -> None:
    """Send what is behind the state's position. The position is saved after each batch that the broker has, so that a
    run that is ended anywhere loses nothing, and the next one repeats less than a batch."""
    reached = state.position
    for step in read(state.position):
        sender.take(step.outcomes)
        reached = step.after
        if sender.full:
            await _commit(path, sender, state, reached, save)
            on_position(reached)
    await _commit(path, sender, state, reached, save)
    on_position(reached)


async def _commit(
    path: Path, sender: Sender, state: SourceState, reached: Position, save: Callable[[SourceState], None]
) -> None:
    await sender.flush()
    if reached != state.position:
        state.position, state.prefix = reached, prefix_of(path, reached)
        save(state)


def _mind_reader(path: Path, options: FileOptions, rules: Rules) -> Reader:
    with open_bytes(path) as file:
        first = file.readline().decode("utf-8", "replace")
    if not is_behaviors(first):
        undated = msgspec.structs.replace(rules, undated=options.undated or "arrival")
        return lambda start: read_news(path, undated, start)
    news = options.news or path.with_name("news.tsv")
    if not news.is_file():
        raise UsageError(f"{path} needs the titles of its articles: there is no {news}; say where with --news")
    reading = Reading(titles=read_titles(news), history_until_ms=options.history_until_ms)
    return lambda start: read_behaviors(path, reading, start)


def resume(path: Path, state: SourceState, now_ms: int) -> None:
    """Set the state to where to go on: the beginning, when the file is another one now than the one that was read."""
    if not state.prefix or state.prefix != prefix_of(path, state.position):
        state.position, state.prefix, state.started_ms = START, "", now_ms
