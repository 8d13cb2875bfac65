"""The Beam job that turns a log of events into examples.

    parts of the log ─▶ Fold parts ─▶ (all) ─▶ Buckets ─▶ Merge readers ─▶ Write the counts

Elements are names of files and counts, never rows. A part is folded to one state for each of its readers, spilled by
bucket (a hash of the reader) into one Arrow file; a bucket merges its states from all files. So memory holds one part
or one bucket, whatever the log's size, and a bundle that is retried writes the same files again.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import apache_beam as beam
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from offline.event_log import LogPart, read_events
from offline.training.example_set import CLICK_SCHEMA, CLICKS, SplitCounts, content_hash
from offline.training.examples import SPLITS, Example, FoldReader, Moment, ReaderState, examples_table, split_of
from offline.training.spilled import read_spilled, write_spilled
from schemas.config import Profiles
from schemas.errors import UsageError
from schemas.full_disk import full_disk_reason

BUCKET_EVENTS: Final = 200_000  # of the log, about; their readers are what one worker holds
MOST_BUCKETS: Final = 1_024
_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(ReaderState)


class PreparePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What all workers share. `scratch` is a folder that each of them sees."""

    parts: tuple[LogPart, ...]
    moments: tuple[Moment, ...]
    profiles: Profiles
    buckets: int
    scratch: str

    def split_path(self, part: LogPart) -> Path:
        return Path(self.scratch) / "splits" / f"{part.number:06d}.arrow"

    def shard_path(self, kind: str, bucket: int) -> Path:
        return Path(self.scratch) / "examples" / kind / f"part-{bucket:05d}.parquet"

    @property
    def fault_path(self) -> Path:
        """Why the job cannot be done, when a worker found that out: runners tell errors in ways of their own."""
        return Path(self.scratch) / "fault.txt"

    @property
    def full_path(self) -> Path:
        """Is there once a worker had no room to write."""
        return Path(self.scratch) / "full"

    @property
    def counts_path(self) -> Path:
        return Path(self.scratch) / "counts.json"


class FoldedPart(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    events: int
    bad_lines: int


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    paths: tuple[str, ...]
    events: int = 0  # the log's counts go with the first bucket
    bad_lines: int = 0


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Of a bucket, or of all."""

    events: int = 0
    bad_lines: int = 0
    readers: int = 0
    splits: dict[str, SplitCounts] = {}
    content: dict[int, str] = {}  # by bucket

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            events=self.events + other.events,
            bad_lines=self.bad_lines + other.bad_lines,
            readers=self.readers + other.readers,
            splits={
                name: self.splits.get(name, SplitCounts()) + other.splits.get(name, SplitCounts()) for name in SPLITS
            },
            content=self.content | other.content,
        )

    @property
    def content_sha256(self) -> str:
        return content_hash(self.content[number] for number in sorted(self.content))


def build_pipeline(pipeline: beam.Pipeline, plan: PreparePlan) -> Any:
    """The whole job on `pipeline`; it ends in `plan.counts_path` and the shards."""
    return (
        pipeline
        | "Parts of the log" >> beam.Create(list(plan.parts), reshuffle=True)
        | "Fold parts" >> beam.ParDo(_FoldParts(plan))
        | "Wait for all parts" >> beam.CombineGlobally(beam.combiners.ToListCombineFn())
        | "Buckets of readers" >> beam.FlatMap(buckets_of, plan)
        | "Spread the buckets" >> beam.Reshuffle()
        | "Merge readers" >> beam.ParDo(_MergeReaders(plan))
        | "Collect the counts" >> beam.CombineGlobally(beam.combiners.ToListCombineFn())
        | "Write the counts" >> beam.FlatMap(_write_counts, plan)
    )


class _FoldParts(beam.DoFn):  # type: ignore[misc]  # Beam is untyped here
    def __init__(self, plan: PreparePlan) -> None:
        self._plan = plan

    def process(self, part: LogPart) -> Iterator[FoldedPart]:
        yield from _told(self._plan, lambda: fold_part(part, self._plan))


class _MergeReaders(beam.DoFn):  # type: ignore[misc]  # Beam is untyped here
    def __init__(self, plan: PreparePlan) -> None:
        self._plan = plan

    def process(self, bucket: Bucket) -> Iterator[Counts]:
        yield from _told(self._plan, lambda: merge_bucket(bucket, self._plan))


def fold_part(part: LogPart, plan: PreparePlan) -> FoldedPart:
    """One state for each reader of the part, in a file with a batch for each bucket."""
    fold = FoldReader(plan.moments, plan.profiles)
    states: dict[str, ReaderState | None] = {}
    events = bad_lines = 0
    for event in read_events(part):
        if event is None:
            bad_lines += 1
            continue
        events += 1
        states[event.user_id] = fold.add_input(states.get(event.user_id), event)
    rows: list[list[bytes]] = [[] for _ in range(plan.buckets)]
    for user_id, state in states.items():
        if state:
            rows[bucket_of(user_id, plan.buckets)].append(_encoder.encode(state))
    path = plan.split_path(part)
    write_spilled(path, rows)
    return FoldedPart(path=str(path), events=events, bad_lines=bad_lines)


def buckets_of(parts: Iterable[FoldedPart], plan: PreparePlan) -> Iterator[Bucket]:
    read = sorted(parts, key=lambda part: part.path)
    paths = tuple(part.path for part in read)
    for number in range(plan.buckets):
        first = number == 0
        yield Bucket(
            number=number,
            paths=paths,
            events=sum(part.events for part in read) if first else 0,
            bad_lines=sum(part.bad_lines for part in read) if first else 0,
        )


def merge_bucket(bucket: Bucket, plan: PreparePlan) -> Counts:
    """Writes the bucket's shards: examples by split, and clicks."""
    fold = FoldReader(plan.moments, plan.profiles)
    states: dict[str, ReaderState | None] = {}
    for data in read_spilled(bucket.paths, bucket.number):
        state = _decoder.decode(data)
        states[state.user_id] = fold.merge_accumulators([states.get(state.user_id), state])
    readers = [state for _, state in sorted(states.items()) if state]
    by_split: dict[str, list[Example]] = {name: [] for name in SPLITS}
    for reader in readers:
        by_split[split_of(reader.user_id)] += fold.extract_output(reader)
    for name, examples in by_split.items():
        write_shard(plan.shard_path(name, bucket.number), examples_table(examples))
    write_shard(plan.shard_path(CLICKS, bucket.number), _clicks(readers))
    return Counts(
        events=bucket.events,
        bad_lines=bucket.bad_lines,
        readers=len(readers),
        splits={name: _counted(examples) for name, examples in by_split.items()},
        content={bucket.number: _content(by_split)},
    )


def _write_counts(counts: Iterable[Counts], plan: PreparePlan) -> Iterator[None]:
    yield from _told(plan, lambda: write_counts(counts, plan))


def write_counts(counts: Iterable[Counts], plan: PreparePlan) -> None:
    total = sum(counts, start=Counts())
    scratch = plan.counts_path.with_suffix(f".{os.getpid()}.tmp")
    scratch.write_bytes(msgspec.json.encode(total))
    scratch.replace(plan.counts_path)


def write_shard(path: Path, table: pa.Table) -> None:
    """Whole or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    pq.write_table(table, scratch, compression="zstd")
    scratch.replace(path)


def bucket_of(user_id: str, buckets: int) -> int:
    digest = hashlib.blake2b(user_id.encode(), digest_size=8, person=b"bucket").digest()
    return int.from_bytes(digest, "big") % buckets


def _told(plan: PreparePlan, work: Callable[[], Any]) -> Iterator[Any]:
    """What `work` gives; nothing where it found that the job cannot be done."""
    try:
        yield work()
    except UsageError as error:
        plan.fault_path.write_text(str(error), encoding="utf-8")
    except OSError as error:
        if full_disk_reason(error):
            plan.full_path.touch()  # an empty file needs no room
        else:
            plan.fault_path.write_text(f"{error.filename or plan.scratch}: {error.strerror}", encoding="utf-8")


def _clicks(readers: Iterable[ReaderState]) -> pa.Table:
    rows = [
        {"user_id": reader.user_id, "article_id": click.article_id, "occurred_at": click.occurred_at}
        for reader in readers
        for click in sorted(reader.history)
    ]
    return pa.Table.from_pylist(rows, schema=CLICK_SCHEMA)


def _counted(examples: list[Example]) -> SplitCounts:
    clicks = [len(example.clicked) for example in examples]
    return SplitCounts(examples=len(clicks), with_clicks=sum(n > 0 for n in clicks), clicks=sum(clicks))


def _content(by_split: dict[str, list[Example]]) -> str:
    return hashlib.sha256(_encoder.encode(by_split)).hexdigest()
