"""Logs as folders of files, in each format, cut and repeated as a test wants them."""

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from offline.experiments.adding import AddUp
from offline.experiments.analyse import make_plan
from offline.experiments.definition import Analysis
from offline.experiments.job import buckets_of, fold_bucket, tally_bucket, with_caps
from offline.experiments.log_files import Format
from offline.experiments.plan import Plan
from offline.experiments.splitting import split_part
from offline.experiments.tally_file import Totals
from schemas.archive import archive_schema
from schemas.exposure import Exposure, Outcome
from schemas.names import Topic
from tests.offline.experiments.log_rows import random_log

NOW_MS = 1_900_000_000_000  # later than every log of the tests
Log = tuple[Sequence[Exposure], Sequence[Outcome]]


def sound_log(seed: int, users: int = 12, *, early: bool = False) -> tuple[list[Exposure], list[Outcome]]:
    """A random log without rows that are refused: what is clicked or read is an article, and after it was shown, unless
    `early` keeps what is dated before."""
    exposures, outcomes = random_log(seed, users)
    shown = {row.request_id: row.exposed_at for row in exposures}
    sound = [row for row in outcomes if row.kind == "visit" or row.article_id]
    return exposures, [row for row in sound if early or row.occurred_at >= shown.get(str(row.request_id), 0)]


def write_log(folder: Path, log: Log, *, form: Format = "parquet", files: int = 1, row_group: int = 1_000) -> Path:
    """`folder`, with the rows dealt to `files` files of each topic."""
    for topic, rows in ((Topic.EXPOSURES, log[0]), (Topic.OUTCOMES, log[1])):
        for number in range(files):
            write_rows(folder, topic, [as_row(row) for row in rows[number::files]], form, number, row_group)
    return folder


def as_row(record: Exposure | Outcome) -> dict[str, Any]:
    return msgspec.structs.asdict(record)


def write_rows(
    folder: Path, topic: str, rows: list[dict[str, Any]], form: Format, number: int = 0, row_group: int = 1_000
) -> Path:
    place = folder / topic / "date=2026-11-01"
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"0-{number}-{number}.{form}"
    if form == "parquet":
        schema = archive_schema(topic)
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=row_group)
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif rows:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def shuffled(log: Log, seed: int, *, repeated: float = 0.5) -> Log:
    """The same rows in another order, a share of them twice."""
    drawn = random.Random(seed)
    found = []
    for rows in log:
        again = [*rows, *drawn.sample(list(rows), round(len(rows) * repeated))]
        drawn.shuffle(again)
        found.append(again)
    return found[0], found[1]


def planned(analysis: Analysis, log: Path, out: Path, *, buckets: int = 1, now_ms: int = NOW_MS) -> Plan:
    scratch = out / "scratch"
    for name in ("splits", "users"):
        (scratch / name).mkdir(parents=True, exist_ok=True)
    plan, _ = make_plan(analysis, log, out, scratch, now_ms)
    return msgspec.structs.replace(plan, buckets=buckets)


def totals(analysis: Analysis, log: Path, out: Path, *, buckets: int = 1) -> Totals:
    """The steps of the job one after another, without a runner."""
    plan = planned(analysis, log, out, buckets=buckets)
    splits = [split_part(part, plan) for part in plan.parts]
    folded = [fold_bucket(bucket, plan) for bucket in buckets_of(splits, plan)]
    adding = AddUp()
    leaves = [tally_bucket(capped, plan) for capped in with_caps(folded, plan)]
    found: Totals = adding.extract_output(adding.merge_accumulators([dict([leaf]) for leaf in leaves]))
    return found
