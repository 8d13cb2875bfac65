"""What the workers of one analysis share: the question, the columns, and where files lie. Pickled to each."""

from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa

from offline.experiments.definition import Analysis
from offline.experiments.encoding import coded_schema
from offline.experiments.log_columns import Column, Kind
from offline.experiments.log_files import Part

KINDS: Final[tuple[Kind, Kind]] = ("exposures", "outcomes")
ROWS_IN_BUCKET: Final = 1_000_000  # of exposures and outcomes: what one worker folds at once
MOST_BUCKETS: Final = 4_096


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    analysis: Analysis
    exposure_columns: tuple[Column, ...]
    outcome_columns: tuple[Column, ...]
    parts: tuple[Part, ...]
    buckets: int
    scratch: str  # seen by all workers, emptied when the run ends
    quarantine: str
    now_ms: int  # what happened later cannot have

    def columns(self, kind: Kind) -> tuple[Column, ...]:
        return self.exposure_columns if kind == "exposures" else self.outcome_columns

    def schema(self, kind: Kind) -> pa.Schema:
        """Of rows between the two passes (encoding.py)."""
        return coded_schema(kind, self.columns(kind), policies=self.analysis.offpolicy is not None)

    def split_path(self, part: Part, number: int) -> Path:
        return Path(self.scratch) / "splits" / f"{part.number:06d}-{number:04d}.arrow"

    def users_path(self, bucket: int) -> Path:
        return Path(self.scratch) / "users" / f"{bucket:06d}.arrow"

    @property
    def result_path(self) -> Path:
        return Path(self.scratch) / "result.json"

    @property
    def listing_path(self) -> Path:
        """The files of splits by kind: too many, at scale, for each bucket to carry their names."""
        return Path(self.scratch) / "splits.json"

    @property
    def fault_path(self) -> Path:
        return Path(self.scratch) / "faults.txt"


def buckets_for(rows: int) -> int:
    """So many that each fits a worker's memory several times over; the same for the same log."""
    return min(MOST_BUCKETS, max(1, -(-rows // ROWS_IN_BUCKET)))
