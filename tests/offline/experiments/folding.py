"""The fold over rows by the contract's names, as the two passes of the job take them."""

import pyarrow as pa

from offline.experiments.definition import Analysis, LogFiles
from offline.experiments.delivery import arrival_column
from offline.experiments.encoding import coded_rows, coded_schema
from offline.experiments.fold import Folded
from offline.experiments.fold import fold_users as fold_coded
from offline.experiments.log_columns import Column, Kind, log_columns, typed_rows
from offline.experiments.splitting import open_session


def fold_users(exposures: pa.Table, outcomes: pa.Table, analysis: Analysis, *, watermark_ms: int) -> Folded:
    shown, done = _coded(exposures, "exposures", analysis), _coded(outcomes, "outcomes", analysis)
    return fold_coded(shown, done, analysis, watermark_ms=watermark_ms)


def _coded(rows: pa.Table, kind: Kind, analysis: Analysis) -> pa.Table:
    columns: list[Column] = log_columns(kind, LogFiles())
    if kind == "outcomes":
        columns.append(arrival_column("arrived_at"))
    with open_session() as session:
        typed = typed_rows(rows, columns).rows
        return coded_rows(typed, coded_schema(kind, tuple(columns), policies=False), analysis, session)
