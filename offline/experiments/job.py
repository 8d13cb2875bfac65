"""The Beam job: parts of the log, split by reader; buckets of readers, folded; cells, added up.

    parts ─▶ Check and split ─▶ (all) ─▶ Fold buckets ─▶ (all) ─▶ Cap and tally ─▶ Add up ─▶ Write

Elements are names of files and small statistics, never rows: rows go through Arrow files (splits.py), so that a runner
needs no memory for them and a worker works in vectors. Retried bundles write the same files again.
No side inputs and no state in DoFns: Dask pickles the whole graph, and computes a side input anew for each user of it.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import apache_beam as beam
import msgspec
import pyarrow as pa
import pyarrow.ipc as ipc

from offline.experiments.adding import AddUp, Node
from offline.experiments.caps import caps_of, count_values, merged_counts
from offline.experiments.definition import Analysis
from offline.experiments.fold import FoldCounts, fold_users
from offline.experiments.log_columns import Kind
from offline.experiments.moments import Moments
from offline.experiments.plan import KINDS, Plan
from offline.experiments.quarantine import early_rows, write_quarantine
from offline.experiments.recall_path import RecallPath
from offline.experiments.splits import one_batch, read_bucket, write_split
from offline.experiments.splitting import Split, split_part
from offline.experiments.tally import tally_users
from offline.experiments.tally_file import Totals, write_totals
from offline.experiments.trust import LogCounts
from offline.experiments.value_counts import ValueCounts
from offline.experiments.whole_files import write_whole
from schemas.experiment import assign_arm

_COUNTED: Final = ("rows", "quarantined", "later", "outside", "answers", "dropped")

Caps = dict[int, float]  # by metric number
CapCounts = dict[int, ValueCounts]


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker folds: the readers of `number` in all splits."""

    number: int
    watermark_ms: int
    log: LogCounts


class FoldedBucket(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    users: str  # path
    counts: FoldCounts
    log: LogCounts
    watermark_ms: int
    capped: CapCounts
    recall: RecallPath = RecallPath()
    delivery: dict[str, Moments] = {}


class CappedBucket(msgspec.Struct, frozen=True):
    bucket: FoldedBucket
    caps: Caps


def build_pipeline(pipeline: beam.Pipeline, plan: Plan) -> Any:
    """The whole job on `pipeline`; it ends in the file `plan.result_path`."""
    folded = read_log(pipeline, plan) | "Fold readers" >> beam.Map(fold_bucket, plan)
    return (
        folded
        | "Wait for all buckets" >> beam.CombineGlobally(beam.combiners.ToListCombineFn()).without_defaults()
        | "Caps from all buckets" >> beam.FlatMap(with_caps, plan)
        | "Spread the users" >> beam.Reshuffle()
        | "Tally" >> beam.Map(tally_bucket, plan)
        | "Add up" >> beam.CombineGlobally(AddUp()).without_defaults()
        | "Write the totals" >> beam.Map(write_totals, str(plan.result_path))
    )


def read_log(pipeline: beam.Pipeline, plan: Plan) -> Any:
    """Buckets of readers, every row of whom lies in the files that a bucket names."""
    return (
        pipeline
        | "Parts of the log" >> beam.Create(list(plan.parts), reshuffle=True)
        | "Check rows and split them by reader" >> beam.Map(split_part, plan)
        | "Wait for all parts" >> beam.CombineGlobally(beam.combiners.ToListCombineFn()).without_defaults()
        | "Buckets of readers" >> beam.FlatMap(buckets_of, plan)
        | "Spread the buckets" >> beam.Reshuffle()
    )


def buckets_of(splits: Iterable[Split], plan: Plan) -> Iterator[Bucket]:
    """One element for each bucket, once the watermark is known; none when a file broke.

    The counts of the log go with the first.
    """
    read = sorted(splits, key=lambda split: split.part)
    if faults := [split.fault for split in read if split.fault]:
        plan.fault_path.write_text("\n".join(faults), encoding="utf-8")
        return
    ends_at = plan.analysis.ends_at
    watermark_ms = round(ends_at.timestamp() * 1000) if ends_at else max(split.latest_ms for split in read)
    paths = {kind: [path for split in read if split.kind == kind for path in split.paths] for kind in KINDS}
    write_whole(plan.listing_path, msgspec.json.encode(paths))
    log = sum((log_counts(split) for split in read), LogCounts())
    for number in range(plan.buckets):
        yield Bucket(
            number=number,
            watermark_ms=watermark_ms,
            log=log if number == 0 else LogCounts(),
        )


def log_counts(split: Split) -> LogCounts:
    return LogCounts(**{name: getattr(split, name) for name in _COUNTED})


def fold_bucket(bucket: Bucket, plan: Plan) -> FoldedBucket:
    """Its users as a file, for the second pass that the caps need."""
    exposures, outcomes = rows_of(bucket.number, plan)
    folded = fold_users(exposures, outcomes, plan.analysis, watermark_ms=bucket.watermark_ms)
    pa.default_memory_pool().release_unused()
    path = plan.users_path(bucket.number)
    write_split(path, [one_batch(folded.users)])
    early = early_rows(folded.delivered.early)
    write_quarantine(early, Path(plan.quarantine), f"bucket-{bucket.number:06d}")
    log = msgspec.structs.replace(bucket.log, quarantined=bucket.log.quarantined + early.num_rows)
    return FoldedBucket(
        number=bucket.number,
        users=str(path),
        counts=folded.counts,
        log=_with_assignments(log, folded.users, plan.analysis),
        watermark_ms=bucket.watermark_ms,
        capped=count_values(folded.users, plan.analysis.metrics),
        recall=folded.recall,
        delivery=folded.delivered.arms,
    )


def rows_of(bucket: int, plan: Plan) -> tuple[pa.Table, pa.Table]:
    """Coded exposures and outcomes of the readers of a bucket."""
    paths = msgspec.json.decode(plan.listing_path.read_bytes(), type=dict[Kind, list[str]])
    exposures, outcomes = (read_bucket(paths[kind], bucket, plan.schema(kind)) for kind in KINDS)
    return exposures, outcomes


def with_caps(folded: Iterable[FoldedBucket], plan: Plan) -> Iterator[CappedBucket]:
    """Each bucket again, once it is known where the capped metrics are cut."""
    buckets = sorted(folded, key=lambda bucket: bucket.number)
    caps = caps_of(merged_counts(bucket.capped for bucket in buckets), plan.analysis.metrics)
    for bucket in buckets:
        yield CappedBucket(msgspec.structs.replace(bucket, capped={}), caps)


def tally_bucket(capped: CappedBucket, plan: Plan) -> tuple[Node, Totals]:
    """A leaf of the tree that `AddUp` adds up."""
    bucket, caps = capped.bucket, capped.caps
    with pa.memory_map(bucket.users) as source, ipc.open_file(source) as reader:
        tally = tally_users(reader.read_all(), plan.analysis.metrics, caps, bucket.counts)
    tally = msgspec.structs.replace(tally, recall=bucket.recall, delivery=bucket.delivery)
    totals = Totals(tally=tally, log=bucket.log, watermark_ms=bucket.watermark_ms, caps=caps)
    return (0, bucket.number), totals


def _with_assignments(log: LogCounts, users: pa.Table, analysis: Analysis) -> LogCounts:
    """Each reader's first exposure in a phase against the one rule that draws arms."""
    if not analysis.log.check_assignment:
        return log
    rows = zip(users["user_id"].to_pylist(), users["first_at"].to_pylist(), users["arm"].to_pylist(), strict=True)
    drawn = [(assign_arm(user, analysis.experiment, at).arm, arm) for user, at, arm in rows]
    other = sum(1 for found, logged in drawn if found is None or found.name != logged)
    return msgspec.structs.replace(log, assigned=log.assigned + len(drawn), reassigned=log.reassigned + other)
