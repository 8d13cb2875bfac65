"""Rows that cannot be counted: found in vectors, taken out with the reason, and written where a person can look.

The rules are the contract's (schemas/exposure.py), which the API keeps; logs of other systems may not.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from offline.experiments.definition import Analysis
from offline.experiments.log_columns import COVARIATE, Column, Kind, Typed, by_value
from offline.experiments.log_files import LINE
from schemas.experiment import HOLDOUT

Mask = NDArray[np.bool_]
FOLDER: Final = "quarantine"
EARLY: Final = "before the exposure that it follows"
TARGET: Final = "target_"  # a column of exposures: a policy's probability of what was shown (definition.Policy)
EARLIEST_MS: Final = 946_684_800_000  # the year 2000: 1970 is what a producer without a clock sends
LONGEST_DWELL_SECONDS: Final = 86_400
_REASONS: Final = 3  # that a message has room for
SCHEMA: Final = pa.schema(
    [
        ("kind", pa.string()),
        ("file", pa.string()),
        ("row_group", pa.int64()),
        ("row", pa.int64()),
        ("field", pa.string()),
        ("reason", pa.string()),
        ("record", pa.string()),
    ]
)


class Origin(msgspec.Struct, frozen=True):
    """Where rows were read: the first of them is row `first_row` of the row group (of the file, for text)."""

    file: str
    row_group: int
    first_row: int


class Rule(msgspec.Struct, frozen=True):
    """`broken` gives a boolean array [n], null where it cannot say."""

    field: str
    reason: str
    broken: Callable[[pa.Table], Any]


class Sifted(msgspec.Struct, frozen=True, eq=False):
    good: pa.Table
    bad: pa.Table  # of SCHEMA
    answers: Counter[str] = Counter()  # of the experiment, by arm: all that are there
    dropped: Counter[str] = Counter()  # and those that are bad


def rules(kind: Kind, columns: Sequence[Column], analysis: Analysis) -> list[Rule]:
    """In the order in which a row's first fault is named."""
    return [*_contract_rules(columns), *(_exposure_rules(analysis) if kind == "exposures" else _outcome_rules())]


def sift(
    typed: Typed, raw: pa.Table, kind: Kind, checks: Sequence[Rule], origin: Origin, experiment: str = ""
) -> Sifted:
    """`raw` are the same rows as the file has them, for the record of a bad one."""
    faults = [(field, f"not a value of the type of {field}", mask) for field, mask in typed.unparsed.items()]
    faults += [(rule.field, rule.reason, rule.broken(typed.rows)) for rule in checks]
    faults = [fault for fault in faults if pc.any(fault[2]).as_py()]
    answers = answers_by_arm(typed.rows, experiment) if kind == "exposures" else Counter()
    if not faults:
        return Sifted(typed.rows, SCHEMA.empty_table(), answers)
    masks = [_bool(mask, typed.rows.num_rows) for _, _, mask in faults]
    bad = np.logical_or.reduce(masks)
    at = np.flatnonzero(bad)
    first = np.argmax(np.stack([mask[at] for mask in masks]), axis=0)
    good = typed.rows.filter(pa.array(~bad))
    lost = answers - answers_by_arm(good, experiment) if kind == "exposures" else Counter()
    return Sifted(good, _bad_rows(raw, kind, origin, at, [faults[n][:2] for n in first]), answers, lost)


def answers_by_arm(exposures: pa.Table, experiment: str) -> Counter[str]:
    """Of each answer one row counts, the first place's: its rows are good or bad together."""
    inside = by_value(exposures["experiment"], lambda names: pc.equal(names, experiment))
    first = pc.and_(inside, pc.less_equal(exposures["position"], 1))
    arms = pc.value_counts(exposures["arm"].filter(pc.fill_null(first, False)))
    return Counter({row["values"]: row["counts"] for row in arms.to_pylist() if row["values"]})


def early_rows(outcomes: pa.Table) -> pa.Table:
    """The record of outcomes dated before their exposure. They are found when both meet, in whatever files they were:
    the record has the id to look for, and no file."""
    count, nowhere = outcomes.num_rows, [None] * outcomes.num_rows
    columns = [["outcomes"] * count, nowhere, nowhere, nowhere, ["occurred_at"] * count, [EARLY] * count]
    return pa.table([*columns, [msgspec.json.encode(row).decode() for row in outcomes.to_pylist()]], schema=SCHEMA)


def most_frequent(folder: Path) -> str:
    """The reasons for which most rows of a quarantine are in it, each with where its first row was."""
    rows = pq.read_table(folder, columns=["file", "row_group", "field", "reason"])
    first = {"file": "first", "row_group": "first"}
    grouped = rows.group_by(["field", "reason"], use_threads=False)
    found = grouped.aggregate([*((name, how) for name, how in first.items()), ("field", "count")]).to_pylist()
    found.sort(key=lambda row: -row["field_count"])
    said = [f"{row['field']}: {row['reason']} ({row['field_count']:,}{_place(row)})" for row in found]
    return "; ".join(said[:_REASONS]) + (f"; and {len(said) - _REASONS} more reasons" if len(said) > _REASONS else "")


def _place(row: dict[str, Any]) -> str:
    return f", first in {row['file_first']}, row group {row['row_group_first']}" if row["file_first"] else ""


def write_quarantine(bad: pa.Table, folder: Path, name: str) -> None:
    """Whole or not at all: a bundle that is tried again writes the same file again."""
    if bad.num_rows:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / f".{name}.{os.getpid()}.tmp"
        pq.write_table(bad, scratch)
        scratch.replace(folder / f"{name}.parquet")


def _contract_rules(columns: Sequence[Column]) -> list[Rule]:
    found = []
    for column in columns:
        if not column.nullable:
            found.append(Rule(column.name, "null", lambda rows, name=column.name: pc.is_null(rows[name])))  # type: ignore[misc]
        if column.name.endswith("_id"):
            found.append(Rule(column.name, "empty", lambda rows, name=column.name: by_value(rows[name], _empty)))  # type: ignore[misc]
        if column.name.startswith(TARGET):
            found.append(Rule(column.name, "not between 0 and 1", lambda rows, name=column.name: _outside(rows[name])))  # type: ignore[misc]
        if column.name.startswith(COVARIATE):
            found.append(Rule(column.name, "no number", lambda rows, name=column.name: _not_finite(rows[name])))  # type: ignore[misc]
        if column.type == "time":
            found.append(
                Rule(column.name, "before 2000", lambda rows, name=column.name: pc.less(rows[name], EARLIEST_MS))  # type: ignore[misc]
            )
    return found


def _exposure_rules(analysis: Analysis) -> list[Rule]:
    experiment = analysis.experiment
    arms = pa.array([*(arm.name for arm in experiment.arms), HOLDOUT])
    start_ms = round(experiment.phases[0].starts_at.timestamp() * 1000)

    def inside(rows: pa.Table) -> Any:
        return by_value(rows["experiment"], lambda names: pc.equal(names, experiment.name))

    def in_arm(rows: pa.Table) -> Any:
        return pc.and_(inside(rows), _not(rows["arm"], HOLDOUT))

    return [
        Rule(
            "propensity",
            "not above 0 and at most 1",
            lambda rows: pc.invert(pc.and_(pc.greater(rows["propensity"], 0), pc.less_equal(rows["propensity"], 1))),
        ),
        Rule("position", "negative", lambda rows: pc.less(rows["position"], 0)),
        Rule(
            "arm",
            f"no arm of {experiment.name}",
            lambda rows: pc.and_(inside(rows), _none_of(rows["arm"], arms)),
        ),
        Rule(
            "phase",
            f"no phase of {experiment.name}",
            lambda rows: pc.and_(
                inside(rows),
                pc.or_(pc.less(rows["phase"], 0), pc.greater_equal(rows["phase"], len(experiment.phases))),
            ),
        ),
        Rule(
            "exposed_at",
            f"before {experiment.name} starts",
            lambda rows: pc.and_(in_arm(rows), pc.less(rows["exposed_at"], start_ms)),
        ),
    ]


def _outcome_rules() -> list[Rule]:
    kinds = pa.array(["click", "dwell", "visit"])
    return [
        Rule("kind", "neither click, dwell nor visit", lambda rows: _none_of(rows["kind"], kinds)),
        Rule(
            "value",
            f"not between 0 and {LONGEST_DWELL_SECONDS}",
            lambda rows: pc.invert(
                pc.and_(pc.greater_equal(rows["value"], 0), pc.less_equal(rows["value"], LONGEST_DWELL_SECONDS))
            ),
        ),
        Rule(
            "value",
            "not 1, and this is no dwell",
            lambda rows: pc.and_(_not(rows["kind"], "dwell"), pc.not_equal(rows["value"], 1)),
        ),
        Rule(
            "article_id",
            "null, and this is no visit",
            lambda rows: pc.and_(_not(rows["kind"], "visit"), pc.is_null(rows["article_id"])),
        ),
    ]


def _empty(texts: Any) -> Any:
    return pc.equal(texts, "")


def _not(column: Any, name: str) -> Any:
    return by_value(column, lambda names: pc.not_equal(names, name))


def _none_of(column: Any, names: pa.Array) -> Any:
    """Also true of null."""
    return pc.fill_null(by_value(column, lambda found: pc.invert(pc.is_in(found, names))), True)


def _not_finite(values: Any) -> Any:
    return pc.invert(pc.is_finite(values))


def _outside(values: Any) -> Any:
    return pc.invert(pc.and_(pc.greater_equal(values, 0), pc.less_equal(values, 1)))


def _bool(mask: Any, rows: int) -> Mask:
    filled = pc.fill_null(mask, False)
    found: Mask = np.asarray(filled.to_numpy(zero_copy_only=False) if isinstance(filled, pa.Array) else filled)
    assert len(found) == rows
    return found.astype(bool)


def _bad_rows(
    raw: pa.Table, kind: Kind, origin: Origin, at: NDArray[np.intp], faults: list[tuple[str, str]]
) -> pa.Table:
    rows = raw.take(pa.array(at)).to_pylist()
    records = [row[LINE].strip() if LINE in row else msgspec.json.encode(row, enc_hook=str).decode() for row in rows]
    count = len(at)
    return pa.table(
        [
            [kind] * count,
            [origin.file] * count,
            [origin.row_group] * count,
            (at + origin.first_row).tolist(),
            [field for field, _ in faults],
            [reason for _, reason in faults],
            records,
        ],
        schema=SCHEMA,
    )
