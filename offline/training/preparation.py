"""From a log to a prepared folder: moments chosen, the job run, what came out checked, the folder put in its place."""

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from offline.event_log import MOST_BAD_SHARE, LogPart, article_files, event_files, event_times, log_parts, read_articles
from offline.event_log import source_file as _source
from offline.passing_folder import passing_folder
from offline.release.folders import build_folder
from offline.runners import RunnerSettings, run_beam
from offline.training.example_set import ARTICLES, CLICKS, MANIFEST, ExamplesManifest, write_articles
from offline.training.examples import SPLITS, Moment
from offline.training.news_index import check_covers
from offline.training.prepare import BUCKET_EVENTS, MOST_BUCKETS, Counts, PreparePlan, build_pipeline
from schemas.article import Article
from schemas.config import Profiles
from schemas.errors import FullDisk, UsageError
from schemas.full_disk import full_disk_message, full_disk_told
from schemas.prompt import BARE

DAY_MS = 86_400_000
EVENT_BYTES = 60  # of one event in the smallest form, a Parquet file
WINDOW_SHARE = 0.25  # of the log's time, when no window is given
_POLL_SECONDS = 0.5

Progress = Callable[[str, int, int], None]  # step, done, of how many


class PrepareSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`window_days` 0: a quarter of the log's time. Training readers are seen at `training_moments` moments."""

    window_days: float = 0.0
    training_moments: int = 1
    profiles: Profiles = Profiles()
    buckets: int = 0  # 0: by the size of the log


def prepare_examples(
    log: Path, out: Path, settings: PrepareSettings, runner: RunnerSettings, progress: Progress
) -> ExamplesManifest:
    """Writes the folder `out`, whole or not at all, and gives its manifest.

    Raises UsageError for a log without clicks, readers or enough time, with news of another time, or with broken files,
    and FullDisk.
    """
    parts = log_parts(log)
    articles = read_articles(log)
    moments = make_moments(*_span(parts, progress), settings)
    check_covers(articles, moments[0].at_ms)
    with full_disk_told(out), passing_folder(out.parent, f".{out.name}-scratch-") as scratch:
        plan = PreparePlan(
            parts=tuple(parts),
            moments=moments,
            profiles=settings.profiles,
            buckets=settings.buckets or buckets_for(event_files(log)),
            scratch=str(scratch),
        )
        counts = run_job(plan, runner, progress)
        _check(counts)
        manifest = _manifest(log, plan, counts, articles)
        build_folder(out, lambda folder: _fill(folder, plan, articles, manifest))
    return manifest


def make_moments(first_ms: int, last_ms: int, settings: PrepareSettings) -> tuple[Moment, ...]:
    """The last moment is one window before the end; training moments are one window apart, all windows before it."""
    window = round(settings.window_days * DAY_MS) or round((last_ms - first_ms) * WINDOW_SHARE)
    ends = [last_ms - window * back for back in range(settings.training_moments + 1)]
    moments = tuple(Moment(at_ms=end - window, until_ms=end, training=number > 0) for number, end in enumerate(ends))
    if window < 1 or moments[-1].at_ms <= first_ms:
        days = (last_ms - first_ms) / DAY_MS
        raise UsageError(
            f"the log covers {days:.2f} days: {len(moments)} windows of {window / DAY_MS:.2f} days leave no history "
            "before them; give a longer log, a smaller --window or fewer --moments"
        )
    return tuple(reversed(moments))


def buckets_for(files: Sequence[Path]) -> int:
    """So many that each fits a worker's memory several times over; the same for the same log."""
    events = sum(path.stat().st_size for path in files) // (EVENT_BYTES if files[0].suffix == ".parquet" else 200)
    return min(MOST_BUCKETS, max(1, -(-events // BUCKET_EVENTS)))


def run_job(plan: PreparePlan, runner: RunnerSettings, progress: Progress) -> Counts:
    """Blocks until the runner is done. UsageError when a worker found out that it cannot be."""
    for folder in ("splits", *(f"examples/{name}" for name in (*SPLITS, CLICKS))):
        (Path(plan.scratch) / folder).mkdir(parents=True)
    with _watched(plan, progress):
        run_beam(lambda pipeline: build_pipeline(pipeline, plan), runner)
    if plan.full_path.exists():
        raise FullDisk(full_disk_message(Path(plan.scratch).parent, os.strerror(errno.ENOSPC)))
    if plan.fault_path.is_file():
        raise UsageError(plan.fault_path.read_text(encoding="utf-8"))
    return msgspec.json.decode(plan.counts_path.read_bytes(), type=Counts)


def _span(parts: Sequence[LogPart], progress: Progress) -> tuple[int, int]:
    found = []
    for number, part in enumerate(parts, start=1):
        if times := event_times(part):
            found.append(times)
        progress("looking at times", number, len(parts))
    if not found:
        raise UsageError("the log holds no events")
    return min(first for first, _ in found), max(last for _, last in found)


def _check(counts: Counts) -> None:
    lines = counts.events + counts.bad_lines
    if counts.bad_lines > MOST_BAD_SHARE * lines:
        raise UsageError(f"{counts.bad_lines:,} of {lines:,} lines are no events: is this the right file?")
    if counts.readers < 2:
        raise UsageError(
            f"the log holds {counts.readers} reader(s) with signals that survive cleaning: lists are chosen and judged "
            "by what other readers clicked, so that many readers are needed"
        )
    if not sum(split.clicks for split in counts.splits.values()):
        raise UsageError(
            "no reader clicked an article in a window after a moment: events of the kind `click` need an article_id "
            "(`keenstream show USER` shows what arrived), or choose another --window"
        )


def _manifest(log: Path, plan: PreparePlan, counts: Counts, articles: Sequence[Article]) -> ExamplesManifest:
    return ExamplesManifest(
        sources=tuple(_source(path, log) for path in [*event_files(log), *article_files(log)]),
        moments=plan.moments,
        prompt_version=BARE,
        signals_per_domain=plan.profiles.signals_per_domain,
        languages=plan.profiles.languages,
        events=counts.events,
        bad_lines=counts.bad_lines,
        readers=counts.readers,
        splits=counts.splits,
        articles=len(articles),
        content_sha256=counts.content_sha256,
    )


def _fill(folder: Path, plan: PreparePlan, articles: Sequence[Article], manifest: ExamplesManifest) -> None:
    for source in (Path(plan.scratch) / "examples").iterdir():
        shutil.move(source, folder / source.name)
    write_articles(folder / ARTICLES, articles)
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


@contextmanager
def _watched(plan: PreparePlan, progress: Progress) -> Iterator[None]:
    """Tells `progress` what the scratch folder holds: the same on every runner."""
    done = threading.Event()

    def watch() -> None:
        scratch = Path(plan.scratch)
        while not done.wait(_POLL_SECONDS):
            progress("folding the log", len(list((scratch / "splits").glob("*.arrow"))), len(plan.parts))
            shards = len(list((scratch / "examples" / CLICKS).glob("part-*")))
            progress("merging readers", shards, plan.buckets)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
