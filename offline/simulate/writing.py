"""Writes a simulation to a folder: articles, events in the order of delivery, impressions, and the truth."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from offline.simulate.delivery import Delivery, simulate_world
from offline.simulate.generated import generated_world
from offline.simulate.given import given_world
from offline.simulate.readers import make_readers
from offline.simulate.sessions import NOISE
from offline.simulate.settings import SimulationSettings, checked
from offline.simulate.truth import EventTruth, Truth, article_truth, reader_truth, topic_truths
from offline.simulate.world import World
from schemas.article import Article
from schemas.codec import ARTICLES, EVENTS
from schemas.errors import UsageError
from schemas.full_disk import full_disk_told

ARTICLES_FILE: Final = "articles.jsonl"
EVENTS_FILE: Final = "events.jsonl"
IMPRESSIONS_FILE: Final = "impressions.jsonl"
TRUTH_FILE: Final = "truth.jsonl"
_FILES: Final = (ARTICLES_FILE, EVENTS_FILE, IMPRESSIONS_FILE, TRUTH_FILE)
_PROGRESS_EVENTS = 5_000

Progress = Callable[[int, int], None]  # distinct events written, events expected


class SimulationSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What was written. `events` counts distinct ones; the file has `events + duplicates` lines."""

    folder: str
    topics: int
    articles: int
    readers: int
    events: int
    duplicates: int
    late: int
    noise: int
    clicks: int
    impressions: int
    first_event_ms: int
    last_event_ms: int


class _Counts(msgspec.Struct):
    events: int = 0
    duplicates: int = 0
    late: int = 0
    noise: int = 0
    clicks: int = 0
    impressions: int = 0
    first_event_ms: int = 0
    last_event_ms: int = 0


def build_world(settings: SimulationSettings, articles: Sequence[Article] | None = None) -> World:
    """The news: the given articles, or the built-in world when there are none to be given."""
    return generated_world(settings) if articles is None else given_world(settings, articles)


def write_simulation(
    folder: Path,
    settings: SimulationSettings,
    articles: Sequence[Article] | None = None,
    progress: Progress | None = None,
) -> SimulationSummary:
    """Writes the four files into `folder` (made when missing, files replaced when all are whole). Memory does not grow
    with the events."""
    settings = checked(settings)
    world = build_world(settings, articles)
    readers = make_readers(settings, world)
    counts = _Counts()
    with full_disk_told(_folder(folder)), _put_in_place(folder), ExitStack() as stack:
        files = _Files(folder, stack)
        for story in world.stories:
            files.articles.write(ARTICLES.encode(story.article) + b"\n")
        files.tell(topic_truths(world))
        files.tell(article_truth(story, world.topics) for story in world.stories)
        files.tell(reader_truth(reader, world.topics) for reader in readers)
        for row in simulate_world(settings, world, readers):
            if isinstance(row, Delivery):
                _write_event(files, row, counts)
                if progress and counts.events % _PROGRESS_EVENTS == 0:
                    progress(counts.events, settings.expected_events)
            else:
                counts.impressions += 1
                files.impressions.write(files.encoder.encode(row) + b"\n")
    return _summary(folder, settings, world, counts)


@contextmanager
def _put_in_place(folder: Path) -> Iterator[None]:
    """The parts that the block wrote become the files; what a failure leaves goes."""
    try:
        yield
        for name in _FILES:
            _part(folder, name).replace(folder / name)
    finally:
        for name in _FILES:
            _part(folder, name).unlink(missing_ok=True)


def _part(folder: Path, name: str) -> Path:
    return folder / f".{name}.part"


class _Files:
    def __init__(self, folder: Path, stack: ExitStack) -> None:
        def opened(name: str) -> BinaryIO:
            return stack.enter_context(_part(folder, name).open("wb", buffering=1 << 20))

        self.encoder = msgspec.json.Encoder()
        self.articles, self.events = opened(ARTICLES_FILE), opened(EVENTS_FILE)
        self.impressions, self.truth = opened(IMPRESSIONS_FILE), opened(TRUTH_FILE)

    def tell(self, rows: Iterable[Truth]) -> None:
        for row in rows:
            self.truth.write(self.encoder.encode(row) + b"\n")


def _folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write into {folder}: {error.strerror}; name a folder") from error
    return folder


def _write_event(files: _Files, row: Delivery, counts: _Counts) -> None:
    event = row.event
    files.events.write(EVENTS.encode(event) + b"\n")
    if row.repeat:
        counts.duplicates += 1
        return
    files.tell((EventTruth(event.event_id, row.origin),))
    counts.events += 1
    counts.late += row.delivered_at > event.occurred_at
    counts.noise += row.origin == NOISE
    counts.clicks += event.kind == "click"
    counts.first_event_ms = min(counts.first_event_ms or event.occurred_at, event.occurred_at)
    counts.last_event_ms = max(counts.last_event_ms, event.occurred_at)


def _summary(folder: Path, settings: SimulationSettings, world: World, counts: _Counts) -> SimulationSummary:
    return SimulationSummary(
        folder=str(folder),
        topics=len(world.topics),
        articles=len(world.stories),
        readers=settings.readers,
        **msgspec.structs.asdict(counts),
    )
