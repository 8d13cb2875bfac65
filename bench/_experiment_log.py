"""Logs of any size for the scale benchmark, written by DuckDB in blocks of readers: sound, with a lift of 10 %."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import duckdb

from offline.experiments.definition import Analysis, Count, LogFiles, Metric
from schemas.experiment import Arm, Experiment, Phase

START: Final = datetime(2026, 1, 5, tzinfo=UTC)
START_MS: Final = int(START.timestamp() * 1000)
NOW_MS: Final = START_MS + 365 * 86_400_000
DAYS, WINDOW_DAYS, HISTORY_DAYS = 14, 7, 14
PLACES: Final = 10  # of an answer
REQUESTS: Final = 10  # of a reader on average, history included
REPEATED: Final = 0.01  # of rows are delivered twice
BLOCK_READERS: Final = 10_000  # one file each
ROWS_OF_READER: Final = PLACES * REQUESTS

ANALYSIS: Final = Analysis(
    experiment=Experiment(
        name="scale",
        salt="scale",
        arms=(Arm(name="control", path=False), Arm(name="treatment")),
        phases=(Phase(starts_at=START, weights={"control": 0.5, "treatment": 0.5}),),
    ),
    control="control",
    metrics=(Metric(name="ctr", role="primary", numerator=Count(of="click"), denominator=Count(of="impression")),),
    ends_at=START + timedelta(days=DAYS + WINDOW_DAYS),
    window_days=float(WINDOW_DAYS),
    history_days=float(HISTORY_DAYS),
    log=LogFiles(exposures="exposures", outcomes="outcomes", check_assignment=False),
)

_READERS: Final = """
CREATE OR REPLACE TEMP TABLE requests AS
    SELECT 'u' || reader AS user_id, 'r' || reader || '-' || n AS request_id, reader % 2 = 1 AS treated,
        {start} + (hash(reader) % {arrival})::BIGINT AS first_at, n,
        CASE WHEN n = 0 THEN 0 WHEN n % 2 = 0 THEN (random() * {window})::BIGINT
            ELSE -(random() * {history})::BIGINT - 1 END AS age, hash(reader, 'cold') % 4 = 0 AS cold
    FROM range({first}, {last}) AS r(reader),
        range(1 + (hash(reader, 'busy') % {most})::BIGINT) AS k(n);
CREATE OR REPLACE TEMP TABLE shown AS
    SELECT request_id || ':' || position AS exposure_id, request_id, user_id,
        CASE WHEN age < 0 THEN '' ELSE 'scale' END AS experiment,
        CASE WHEN age < 0 THEN '' WHEN treated THEN 'treatment' ELSE 'control' END AS arm,
        0::BIGINT AS phase, true AS triggered, position, 'a' || (hash(request_id, position) % 5000) AS article_id,
        1.0::DOUBLE AS propensity, 'student' AS source, false AS exclusive,
        CASE WHEN cold THEN 1 ELSE 12 END::BIGINT AS reader_signals, first_at + age AS exposed_at
    FROM requests, range(1, {places} + 1) AS p(position) WHERE NOT (cold AND age < 0);
"""
_CLICKS: Final = """
    SELECT 'c-' || exposure_id AS outcome_id, request_id, user_id, article_id, 'click' AS kind, 1.0::DOUBLE AS value,
        exposed_at + 1000 + (random() * 60000)::BIGINT AS occurred_at
    FROM shown WHERE random() < 0.08 / position * CASE WHEN arm = 'treatment' THEN 1.1 ELSE 1 END
"""


def write_log(folder: Path, rows: int, *, seed: int) -> int:
    """About `rows` exposures below `folder`, block by block; how many there are."""
    written = 0
    for name in ("exposures", "outcomes"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with duckdb.connect(":memory:", config={"threads": 1}) as session:
        session.execute(f"SELECT setseed({(seed % 1000) / 1000})")
        readers = max(1, rows // ROWS_OF_READER)
        for block, first in enumerate(range(0, readers, BLOCK_READERS)):
            written += _write_block(session, folder, block, first, min(readers, first + BLOCK_READERS))
    return written


def _write_block(session: duckdb.DuckDBPyConnection, folder: Path, block: int, first: int, last: int) -> int:
    day = 86_400_000
    session.execute(
        _READERS.format(
            start=START_MS,
            arrival=DAYS * day,
            window=WINDOW_DAYS * day - 120_000,
            history=HISTORY_DAYS * day - 120_000,
            first=first,
            last=last,
            most=2 * REQUESTS - 1,
            places=PLACES,
        )
    )
    again = f"SELECT * FROM shown UNION ALL SELECT * FROM shown WHERE hash(exposure_id) % {round(1 / REPEATED)} = 0"
    for name, query in (("exposures", again), ("outcomes", _CLICKS)):
        path = folder / name / f"part-{block:05d}.parquet"
        session.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 122880)")
    found = session.execute(f"SELECT count(*) FROM '{folder / 'exposures' / f'part-{block:05d}.parquet'}'").fetchone()
    return int(found[0]) if found else 0
