"""Writes a simulated experiment to a folder: the log as the archive has it, the analysis' config, and the truth."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from offline.simulate.experiment_log import PolicyValue, generate_log, policy_values
from offline.simulate.log_faults import Planted
from offline.simulate.log_settings import (
    BOT_REQUESTS,
    COLD_SIGNALS,
    CONTROL,
    DAY_MS,
    LogSettings,
    check_settings,
    experiment_of,
)
from offline.simulate.log_truth import Effect, TruthSums, effects
from schemas.archive import ARCHIVED, ARRIVED, OFFSET, PARTITION, ArchiveFile, archive_schema
from schemas.errors import UsageError
from schemas.names import Topic

CONFIG_FILE: Final = "analysis.toml"
TRUTH_FILE: Final = "truth.json"
LogFormat = Literal["parquet", "jsonl"]
Progress = Callable[[int, int], None]  # readers done, of how many


class LogTruth(msgspec.Struct, frozen=True, kw_only=True):
    """What is written to `truth.json`: what was asked for, what a sound analysis finds, and what was planted.

    `effects` hold for readers of the last phase whose window passes before the end, bots left out.
    """

    settings: LogSettings
    effects: list[Effect]
    policies: list[PolicyValue]  # clicks of one shown place; empty without exploration
    planted: Planted


def write_log(
    folder: Path, settings: LogSettings, *, form: LogFormat = "parquet", progress: Progress | None = None
) -> LogTruth:
    """`exposures/`, `outcomes/`, `analysis.toml` and `truth.json`, in a folder that has no log yet.

    Memory is bounded by one chunk of readers. UsageError for settings that do not agree and for a folder with a log.
    """
    check_settings(settings)
    _check_empty(folder)
    planted, truth, policies = Planted(), TruthSums.zero(), np.zeros(3)
    written = {Topic.EXPOSURES: 0, Topic.OUTCOMES: 0}
    for chunk in generate_log(settings):
        for topic, table in ((Topic.EXPOSURES, chunk.exposures), (Topic.OUTCOMES, chunk.outcomes)):
            _write_chunk(folder, topic, table, written[topic], form)
            written[topic] += table.num_rows
        planted, truth, policies = planted + chunk.planted, truth + chunk.truth, policies + chunk.policy_sums
        if progress:
            progress(chunk.first_reader + chunk.readers, settings.readers)
    values = policy_values(policies) if settings.exploration else []
    found = LogTruth(settings=settings, effects=effects(truth), policies=values, planted=planted)
    (folder / CONFIG_FILE).write_text(analysis_config(settings), encoding="utf-8")
    (folder / TRUTH_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    return found


def analysis_config(settings: LogSettings) -> str:
    """The config of `keenstream experiment analyse`, as TOML."""
    experiment = experiment_of(settings)
    lines = [
        f'control = "{CONTROL}"',
        f"ends_at = {_moment(settings.end_ms)}",
        f"window_days = {float(settings.window_days)}",
        f"history_days = {float(max(settings.history_days, 1.0))}",
        f"cold_signals = {COLD_SIGNALS}",
        f"bot_requests = {BOT_REQUESTS}",
        "",
        "[experiment]",
        f"name = {_text(experiment.name)}",
        f"salt = {_text(experiment.salt)}",
    ]
    for arm in experiment.arms:
        path = str(arm.path).lower()
        lines += ["", "[[experiment.arms]]", f"name = {_text(arm.name)}", f"path = {path}"]
        lines += [f"exploration = {arm.exploration}"]
    for phase in experiment.phases:
        weights = ", ".join(f"{_text(arm)} = {weight}" for arm, weight in phase.weights.items())
        starts = _moment(round(phase.starts_at.timestamp() * 1000))
        lines += ["", "[[experiment.phases]]", f"starts_at = {starts}", f"weights = {{ {weights} }}"]
    return "\n".join([*lines, _METRICS, *([_POLICIES] if settings.exploration else [])])


_METRICS: Final = """
[[metrics]]
name = "ctr"
role = "primary"
numerator = { of = "click" }
denominator = { of = "impression" }

[[metrics]]
name = "clicks"
numerator = { of = "click" }

[[metrics]]
name = "dwell"
numerator = { of = "dwell", aggregate = "sum" }

[[metrics]]
name = "active-days"
numerator = { of = "visit", aggregate = "days" }

[[metrics]]
name = "visits"
role = "guardrail"
margin = 0.05
numerator = { of = "visit" }

[[metrics]]
name = "returned"
numerator = { of = "visit", aggregate = "any", after_days = 1.0 }
"""
_POLICIES: Final = """
[[offpolicy.policies]]
name = "ranked"
exploration = 0.0

[[offpolicy.policies]]
name = "uniform"
exploration = 1.0
"""


def _write_chunk(folder: Path, topic: str, table: pa.Table, first: int, form: LogFormat) -> None:
    """Its rows by arrival as one range of offsets of partition 0: a file for each day that has rows."""
    ordered = table.sort_by([(ARRIVED, "ascending")])
    count = ordered.num_rows
    ordered = ordered.append_column(PARTITION, pa.array(np.zeros(count, dtype=np.int32)))
    ordered = ordered.append_column(OFFSET, pa.array(np.arange(first, first + count)))
    day = ordered[ARCHIVED[topic].time_field].to_numpy() // DAY_MS
    schema = archive_schema(topic)
    for number in np.unique(day):
        rows = ordered.filter(pa.array(day == number)).select(schema.names)
        name = ArchiveFile(datetime.fromtimestamp(int(number) * 86_400, UTC).date(), 0, first, first + count - 1).name
        path = folder / topic / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if form == "parquet":
            pq.write_table(rows.cast(schema), path, compression="zstd")
        else:
            _write_jsonl(rows, path.with_suffix(".jsonl"))


def _write_jsonl(rows: Any, path: Path) -> None:
    """Times as UTC milliseconds, as on the topic."""
    with duckdb.connect(":memory:", config={"threads": 1}) as session:
        session.register("written", rows)
        quoted = str(path).replace("'", "''")
        session.execute(f"COPY (SELECT * FROM written) TO '{quoted}' (FORMAT json)")


def _check_empty(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write into {folder}: {error.strerror}; name a folder") from error
    for topic in (Topic.EXPOSURES, Topic.OUTCOMES):
        if (folder / topic).exists():
            raise UsageError(f"{folder} has {topic} already, which would be mixed with new ones: name an empty folder")


def _moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat().replace("+00:00", "Z")


def _text(value: str) -> str:
    return msgspec.json.encode(value).decode()  # a JSON string is a basic string of TOML
