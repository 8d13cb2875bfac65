"""Rows that cannot be counted: each kind is taken out with its reason, and the rest is analysed."""

from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from offline.experiments.log_files import Format
from schemas.experiment import HOLDOUT
from schemas.names import Topic
from tests.offline.experiments.log_folders import NOW_MS, as_row, sound_log, totals, write_rows
from tests.offline.experiments.log_rows import ANALYSIS, START, START_MS

EXPOSURES, OUTCOMES = sound_log(1, users=30)
INSIDE = next(n for n, row in enumerate(EXPOSURES) if row.experiment)
CLICK = next(n for n, row in enumerate(OUTCOMES) if row.kind == "click")


def quarantined(folder: Path, topic: str, at: int, changes: dict[str, Any], form: Format) -> list[dict[str, Any]]:
    rows = {Topic.EXPOSURES: [as_row(row) for row in EXPOSURES], Topic.OUTCOMES: [as_row(row) for row in OUTCOMES]}
    rows[topic][at] |= changes
    for name, written in rows.items():
        write_rows(folder, name, written, form)
    found = totals(ANALYSIS, folder, folder / "out")
    assert found.log.rows == len(EXPOSURES) + len(OUTCOMES)
    bad = [row for path in (folder / "out" / "quarantine").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert found.log.quarantined == len(bad)
    return bad


@pytest.mark.parametrize(
    ("topic", "changes", "field", "reason"),
    [
        (Topic.EXPOSURES, {"user_id": None}, "user_id", "null"),
        (Topic.EXPOSURES, {"user_id": ""}, "user_id", "empty"),
        (Topic.EXPOSURES, {"propensity": 0.0}, "propensity", "not above 0 and at most 1"),
        (Topic.EXPOSURES, {"propensity": 1.5}, "propensity", "not above 0 and at most 1"),
        (Topic.EXPOSURES, {"propensity": float("nan")}, "propensity", "not above 0 and at most 1"),
        (Topic.EXPOSURES, {"position": -1}, "position", "negative"),
        (Topic.EXPOSURES, {"arm": "red"}, "arm", "no arm of path"),
        (Topic.EXPOSURES, {"phase": 7}, "phase", "no phase of path"),
        (Topic.EXPOSURES, {"exposed_at": START_MS - 1}, "exposed_at", "before path starts"),
        (Topic.EXPOSURES, {"exposed_at": 5}, "exposed_at", "before 2000"),
        (Topic.EXPOSURES, {"exposed_at": NOW_MS + 1}, "exposed_at", "in the future"),
        (Topic.OUTCOMES, {"kind": "like"}, "kind", "neither click, dwell nor visit"),
        (Topic.OUTCOMES, {"kind": "dwell", "value": -1.0}, "value", "not between 0 and 86400"),
        (Topic.OUTCOMES, {"value": 2.0}, "value", "not 1, and this is no dwell"),
        (Topic.OUTCOMES, {"article_id": None}, "article_id", "null, and this is no visit"),
    ],
)
def test_each_fault_has_its_reason(
    tmp_path: Path, topic: str, changes: dict[str, Any], field: str, reason: str
) -> None:
    at = INSIDE if topic == Topic.EXPOSURES else CLICK
    (row,) = quarantined(tmp_path, topic, at, changes, "parquet")
    assert (row["kind"], row["field"], row["reason"], row["row"]) == (topic, field, reason, at)
    assert row["file"].endswith("0-0-0.parquet")
    assert msgspec.json.decode(row["record"])["request_id" if topic == Topic.EXPOSURES else "outcome_id"]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_text_that_is_no_number_is_a_bad_row(tmp_path: Path, form: Format) -> None:
    (row,) = quarantined(tmp_path, Topic.EXPOSURES, INSIDE, {"position": "first"}, form)
    assert (row["field"], row["reason"]) == ("position", "not a value of the type of position")


def test_a_broken_line_is_a_bad_row(tmp_path: Path) -> None:
    write_rows(tmp_path, Topic.OUTCOMES, [as_row(row) for row in OUTCOMES], "jsonl")
    path = write_rows(tmp_path, Topic.EXPOSURES, [as_row(row) for row in EXPOSURES], "jsonl")
    path.write_text(path.read_text() + '{"exposure_id": "e\n')
    assert totals(ANALYSIS, tmp_path, tmp_path / "out").log.quarantined == 1
    (file,) = (tmp_path / "out" / "quarantine").glob("*.parquet")
    (row,) = pq.read_table(file).to_pylist()
    assert (row["reason"], row["record"]) == ("not JSON", '{"exposure_id": "e')


def test_the_files_of_an_earlier_run_are_gone(tmp_path: Path) -> None:
    quarantined(tmp_path, Topic.EXPOSURES, INSIDE, {"user_id": None}, "parquet")
    assert quarantined(tmp_path, Topic.EXPOSURES, INSIDE, {}, "parquet") == []


def test_the_holdout_and_overridden_readers_are_history_only(tmp_path: Path) -> None:
    assert quarantined(tmp_path, Topic.EXPOSURES, INSIDE, {"arm": HOLDOUT}, "parquet") == []
    reader = EXPOSURES[INSIDE].user_id
    changed = msgspec.structs.replace(ANALYSIS.experiment, overrides={reader: "control"})
    found = totals(msgspec.structs.replace(ANALYSIS, experiment=changed), tmp_path, tmp_path / "out")
    own = sum(row.user_id == reader and bool(row.experiment) for row in EXPOSURES)
    assert found.log.outside == own
    everyone = {row.user_id for row in EXPOSURES if row.experiment}
    assert found.tally.total(lambda key: True).exposed == len(everyone) - 1


def test_what_is_later_than_the_watermark_is_left_for_another_day(tmp_path: Path) -> None:
    ends = msgspec.structs.replace(ANALYSIS, ends_at=START)
    assert quarantined(tmp_path, Topic.EXPOSURES, INSIDE, {}, "parquet") == []
    found = totals(ends, tmp_path, tmp_path / "out")
    rows = [*(row.exposed_at for row in EXPOSURES), *(row.occurred_at for row in OUTCOMES)]
    assert found.log.later == sum(at > START_MS for at in rows)
    assert found.watermark_ms == START_MS
