"""The first pass over the log: read a part, take bad rows out, split what is left by reader."""

from collections import Counter
from pathlib import Path
from typing import Final

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from offline.experiments.encoding import coded_rows
from offline.experiments.log_columns import Kind, Typed, by_value, parsed_rows, typed_rows
from offline.experiments.log_files import IS_JSON, LINE, Batch, Part, json_fields, read_slice
from offline.experiments.plan import Plan
from offline.experiments.quarantine import Origin, Rule, Sifted, rules, sift, write_quarantine
from offline.experiments.splits import bucket_rows, write_split
from schemas.errors import UsageError
from schemas.experiment import HOLDOUT
from schemas.exposure import NO_EXPERIMENT

CODED_AT_ONCE: Final = 250_000  # rows; coded ones take a third of the memory
SPLIT_ROWS: Final = 1_000_000
TIME: Final[dict[Kind, str]] = {"exposures": "exposed_at", "outcomes": "occurred_at"}


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """One part, read."""

    part: int
    kind: Kind
    paths: tuple[str, ...]
    rows: int  # all that were there
    quarantined: int
    later: int  # than the watermark, left for the next run
    outside: int  # exposures of the holdout and of readers with an override, kept as history only
    latest_ms: int  # of the good rows; 0 when there are none
    answers: dict[str, int] = {}  # of the experiment, by arm, with the bad ones
    dropped: dict[str, int] = {}
    fault: str = ""  # a file that cannot be read


def open_session() -> duckdb.DuckDBPyConnection:
    session = duckdb.connect(":memory:", config={"threads": 1})
    session.execute("SET TimeZone = 'UTC'")
    return session


def split_part(part: Part, plan: Plan) -> Split:
    """The same files whenever it is done again. A file that broke is a `fault`, for the run to end with."""
    with open_session() as session:
        work = _Splitting(part, plan, session)
        try:
            for one in part.slices:
                for batch in read_slice(one, plan.columns(part.kind)):
                    work.add(batch)
        except UsageError as error:
            return work.finish(fault=str(error))
        return work.finish()


class _Splitting:
    def __init__(self, part: Part, plan: Plan, session: duckdb.DuckDBPyConnection) -> None:
        self._part, self._plan, self._session = part, plan, session
        self._columns = plan.columns(part.kind)
        self._rules = [*rules(part.kind, self._columns, plan.analysis), _in_the_future(part.kind, plan.now_ms)]
        self._kept: list[pa.Table] = []
        self._coded: list[pa.Table] = []
        self._bad: list[pa.Table] = []
        self._paths: list[str] = []
        self._rows = self._later = self._outside = self._latest = 0
        self._answers: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()

    def add(self, batch: Batch) -> None:
        raw, checks = batch.rows, self._rules
        if batch.slice.format == "jsonl":
            raw = json_fields(raw, self._columns, self._session)
            checks = [Rule(LINE, "not JSON", lambda _: pc.invert(raw[IS_JSON])), *checks]
        origin = Origin(batch.slice.path, batch.slice.row_group, batch.first_row)
        experiment = self._plan.analysis.experiment.name
        sifted = sift(self._typed(raw, batch), batch.rows, self._part.kind, checks, origin, experiment)
        self._rows += raw.num_rows
        self._note(sifted)
        if _rows(self._kept) >= CODED_AT_ONCE:
            self._code()
        if _rows(self._coded) >= SPLIT_ROWS:
            self._write()

    def finish(self, fault: str = "") -> Split:
        self._code()
        self._write()
        bad = pa.concat_tables(self._bad) if self._bad else None
        if bad is not None:
            write_quarantine(bad, Path(self._plan.quarantine), f"part-{self._part.number:06d}")
        return Split(
            part=self._part.number,
            kind=self._part.kind,
            paths=tuple(self._paths),
            rows=self._rows,
            quarantined=bad.num_rows if bad is not None else 0,
            later=self._later,
            outside=self._outside,
            latest_ms=self._latest,
            answers=dict(self._answers),
            dropped=dict(self._dropped),
            fault=fault,
        )

    def _typed(self, raw: pa.Table, batch: Batch) -> Typed:
        if batch.slice.format == "parquet":
            return typed_rows(raw, self._columns)
        return parsed_rows(raw, self._columns, self._session)

    def _note(self, sifted: Sifted) -> None:
        if sifted.bad.num_rows:
            self._bad.append(sifted.bad)
        self._answers.update(sifted.answers)
        self._dropped.update(sifted.dropped)
        good, later = _up_to_watermark(sifted.good, TIME[self._part.kind], self._plan)
        self._later += later
        if not good.num_rows:
            return
        self._latest = max(self._latest, pc.max(good[TIME[self._part.kind]]).as_py())
        if self._part.kind == "exposures":
            good, outside = _history_only(good, self._plan)
            self._outside += outside
        self._kept.append(good)

    def _code(self) -> None:
        if self._kept:
            schema = self._plan.schema(self._part.kind)
            self._coded.append(coded_rows(_together(self._kept), schema, self._plan.analysis, self._session))
            self._kept = []

    def _write(self) -> None:
        if self._coded:
            path = self._plan.split_path(self._part, len(self._paths))
            write_split(path, bucket_rows(pa.concat_tables(self._coded), self._plan.buckets, self._session))
            self._paths.append(str(path))
            self._coded = []
            pa.default_memory_pool().release_unused()  # what it keeps grows with the log, by pieces nobody can use


def _rows(tables: list[pa.Table]) -> int:
    return sum(table.num_rows for table in tables)


def _together(tables: list[pa.Table]) -> pa.Table:
    """Text is a dictionary where it is one in all of them."""
    schema = tables[0].schema
    for other in tables[1:]:
        plain = [field for field in other.schema if not pa.types.is_dictionary(field.type)]
        for field in plain:
            schema = schema.set(schema.get_field_index(field.name), field)
    return pa.concat_tables(table.cast(schema) for table in tables)


def _in_the_future(kind: Kind, now_ms: int) -> Rule:
    return Rule(TIME[kind], "in the future", lambda rows: pc.greater(rows[TIME[kind]], now_ms))


def _up_to_watermark(rows: pa.Table, time: str, plan: Plan) -> tuple[pa.Table, int]:
    """What happened later is not there yet: the same day read again next week gives the same."""
    if plan.analysis.ends_at is None:
        return rows, 0
    before = pc.less_equal(rows[time], round(plan.analysis.ends_at.timestamp() * 1000))
    if pc.all(before).as_py():
        return rows, 0
    kept = rows.filter(before)
    return kept, rows.num_rows - kept.num_rows


def _history_only(rows: pa.Table, plan: Plan) -> tuple[pa.Table, int]:
    """Exposures of readers outside the experiment, or before `starts_at`, belong to no arm; they stay as history."""
    analysis = plan.analysis
    outside = by_value(rows["arm"], lambda arms: pc.equal(arms, HOLDOUT))
    if analysis.experiment.overrides:
        given = pa.array(sorted(analysis.experiment.overrides))
        outside = pc.or_(outside, by_value(rows["user_id"], lambda users: pc.is_in(users, given)))
    if analysis.starts_at is not None:
        outside = pc.or_(outside, pc.less(rows["exposed_at"], round(analysis.starts_at.timestamp() * 1000)))
    inside = pc.and_(by_value(rows["experiment"], lambda names: pc.equal(names, analysis.experiment.name)), outside)
    count = pc.sum(inside).as_py() or 0
    if not count:
        return rows, 0
    at = rows.column_names.index("experiment")
    experiment = pc.if_else(inside, NO_EXPERIMENT, rows["experiment"])
    return rows.set_column(at, "experiment", experiment.cast(rows["experiment"].type)), count
