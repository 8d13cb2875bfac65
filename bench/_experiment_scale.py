"""The fold of a log's rows to readers, at any size: our Beam job, DuckDB and pandas, each in a process of its own.

    python -m bench._experiment_scale ENGINE FOLDER      (what `keenstream bench experiments` starts for each figure)

All three read the same Parquet files and count, for each reader, clicks and impressions in the window after the first
exposure and in the history before it, repeated rows once. DuckDB and pandas do this fold and nothing else; the job also
checks every row, counts cross-overs, compares each arm with the assignment and writes the report.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import duckdb
import msgspec
import psutil

from bench._experiment_log import ANALYSIS, NOW_MS
from schemas.errors import KeenstreamError

START_ROWS: Final = 1_000  # of the log on which the fixed cost of an engine is measured
DUCKDB_MEMORY: Final = "3GB"  # by itself it takes four fifths of the machine's
POLL_SECONDS: Final = 0.05
DAY_MS: Final = 86_400_000


class Folded(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine found: must be the same for all."""

    readers: int
    clicks: float
    impressions: float


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    engine: str
    rows: int  # exposures
    seconds: float
    rows_per_second: float
    cpu_seconds: float  # of all its processes
    start_cpu_seconds: float  # of that, what a log of START_ROWS takes: imports and the runner's start
    rows_per_cpu_second: float  # without the start
    peak_megabytes: float  # resident, summed over the process and its children
    folded: Folded

    @property
    def fold_cpu_seconds(self) -> float:
        return max(0.0, self.cpu_seconds - self.start_cpu_seconds)


def measure_engine(engine: str, folder: Path, rows: int, start_cpu_seconds: float = 0.0) -> Measured:
    """Runs one engine in a process of its own; its peak is that of the whole process tree."""
    began, before = time.monotonic(), _cpu_of_children()
    argv = [sys.executable, "-m", "bench._experiment_scale", engine, str(folder)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = _watch(process)
    seconds = time.monotonic() - began
    out, errors = process.communicate()
    if process.returncode:
        raise KeenstreamError(f"{engine} ended with {process.returncode}:\n{errors[-2_000:]}")
    found, cpu = json.loads(out.splitlines()[-1]), _cpu_of_children() - before
    return Measured(
        engine=engine,
        rows=rows,
        seconds=round(seconds, 2),
        rows_per_second=round(rows / seconds),
        cpu_seconds=round(cpu, 2),
        start_cpu_seconds=round(start_cpu_seconds, 2),
        rows_per_cpu_second=round(rows / max(0.01, cpu - start_cpu_seconds)),
        peak_megabytes=round(peak / 2**20, 1),
        folded=msgspec.convert(found, Folded),
    )


def _cpu_of_children() -> float:
    """Seconds of all processes that this one has waited for, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _watch(process: "subprocess.Popen[str]") -> int:
    """The largest resident memory of the tree until it ends, in bytes."""
    peak, root = 0, psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        try:
            for member in (root, *root.children(recursive=True)):
                total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
        peak = max(peak, total)
        time.sleep(POLL_SECONDS)
    return peak


def fold_by_beam(folder: Path, workers: int = 1) -> Folded:
    """`keenstream experiment analyse` as it is: all of it, report included."""
    from offline.experiments.analyse import read_tally
    from offline.experiments.report import build_report
    from offline.experiments.trust import LogCounts
    from offline.runners import RunnerSettings

    out, settings = folder / f"out-{workers}", RunnerSettings(workers=workers)
    tally = read_tally(ANALYSIS, folder, out, now_ms=NOW_MS, settings=settings)
    build_report(tally, ANALYSIS, LogCounts())
    moments = tally.total(lambda key: True).moments[0]
    return Folded(
        readers=moments.count,
        clicks=round(float(moments.mean[0]) * moments.count),
        impressions=round(float(moments.mean[1]) * moments.count),
    )


_DUCKDB: Final = """
CREATE TEMP TABLE shown AS
    SELECT exposure_id, any_value(user_id) AS user_id, min(exposed_at) AS time_ms, any_value(article_id) AS article_id,
        any_value(experiment) AS experiment, any_value(arm) AS arm
    FROM read_parquet('{exposures}') GROUP BY exposure_id;
CREATE TEMP TABLE done AS
    SELECT outcome_id, any_value(user_id) AS user_id, min(occurred_at) AS time_ms
    FROM read_parquet('{outcomes}') WHERE kind = 'click' GROUP BY outcome_id;
CREATE TEMP TABLE units AS
    SELECT user_id, min(time_ms) AS first_at, arg_min(arm, time_ms) AS arm
    FROM shown WHERE experiment = '{name}' GROUP BY user_id;
CREATE TEMP TABLE happened AS
    SELECT user_id, time_ms, 0 AS click FROM shown WHERE article_id IS NOT NULL
    UNION ALL SELECT user_id, time_ms, 1 FROM done;
CREATE TEMP TABLE readers AS
    SELECT user_id, any_value(arm) AS arm, first_at,
        count(*) FILTER (WHERE click = 1 AND time_ms BETWEEN first_at AND first_at + {window}) AS clicks,
        count(*) FILTER (WHERE click = 0 AND time_ms BETWEEN first_at AND first_at + {window}) AS impressions,
        count(*) FILTER (WHERE click = 1 AND time_ms >= first_at - {history} AND time_ms < first_at) AS pre_clicks,
        count(*) FILTER (WHERE click = 0 AND time_ms >= first_at - {history} AND time_ms < first_at) AS pre_impressions
    FROM units LEFT JOIN happened USING (user_id) GROUP BY user_id, first_at;
"""


def fold_by_duckdb(folder: Path) -> Folded:
    """The same fold as one program of SQL, on one thread as one worker of the job has it; beyond DUCKDB_MEMORY it
    spills to disk."""
    spill = {"memory_limit": DUCKDB_MEMORY, "temp_directory": str(folder / "spilled")}
    with duckdb.connect(":memory:", config={"threads": 1, **spill}) as session:
        session.execute(
            _DUCKDB.format(
                exposures=folder / "exposures" / "*.parquet",
                outcomes=folder / "outcomes" / "*.parquet",
                name=ANALYSIS.experiment.name,
                window=round(ANALYSIS.window_days * DAY_MS),
                history=round(ANALYSIS.history_days * DAY_MS),
            )
        )
        row = session.execute("SELECT count(*), sum(clicks), sum(impressions) FROM readers").fetchone()
    if row is None:
        raise KeenstreamError("DuckDB gave no row")
    return Folded(readers=row[0], clicks=float(row[1]), impressions=float(row[2]))


def fold_by_pandas(folder: Path) -> Folded:
    """The same fold with data frames, all rows in memory."""
    import pandas as pd

    shown = pd.read_parquet(
        folder / "exposures", columns=["exposure_id", "user_id", "exposed_at", "article_id", "experiment", "arm"]
    )
    shown = shown.sort_values("exposed_at").drop_duplicates("exposure_id")
    done = pd.read_parquet(folder / "outcomes", columns=["outcome_id", "user_id", "occurred_at", "kind"])
    done = done[done["kind"] == "click"].sort_values("occurred_at").drop_duplicates("outcome_id")
    units = (
        shown[shown["experiment"] == ANALYSIS.experiment.name]
        .groupby("user_id")
        .agg(first_at=("exposed_at", "min"), arm=("arm", "first"))
    )
    for name, rows, time_name in (
        ("clicks", done, "occurred_at"),
        ("impressions", shown[shown["article_id"].notna()], "exposed_at"),
    ):
        at = rows[["user_id", time_name]].join(units["first_at"], on="user_id", how="inner")
        age = at[time_name] - at["first_at"]
        during = (age >= 0) & (age <= ANALYSIS.window_days * DAY_MS)
        before = (age < 0) & (age >= -ANALYSIS.history_days * DAY_MS)
        units[name] = at[during].groupby("user_id").size()
        units[f"pre_{name}"] = at[before].groupby("user_id").size()
    units = units.fillna({"clicks": 0, "impressions": 0, "pre_clicks": 0, "pre_impressions": 0})
    return Folded(
        readers=len(units), clicks=float(units["clicks"].sum()), impressions=float(units["impressions"].sum())
    )


ENGINES: Final[dict[str, Callable[[Path], Folded]]] = {
    "keenstream": fold_by_beam,
    "keenstream, 2 processes": lambda folder: fold_by_beam(folder, workers=2),
    "DuckDB": fold_by_duckdb,
    "pandas": fold_by_pandas,
}


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.encode(ENGINES[sys.argv[1]](Path(sys.argv[2]))).decode() + "\n")
