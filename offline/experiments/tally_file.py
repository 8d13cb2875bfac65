"""The totals of a job as a file: what the last step of the job writes and the report is made of."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from offline.experiments.fold import FoldCounts
from offline.experiments.moments import Moments
from offline.experiments.places import PlaceKey, PlaceSums
from offline.experiments.recall_path import RecallPath
from offline.experiments.tally import Cell, CellKey, Tally
from offline.experiments.trust import LogCounts
from schemas.errors import KeenstreamError


class Totals(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Addable; caps and watermark are the same in all parts."""

    tally: Tally
    log: LogCounts
    watermark_ms: int
    caps: dict[int, float]  # by metric number: where its numerator was cut

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(
            tally=self.tally + other.tally,
            log=self.log + other.log,
            watermark_ms=self.watermark_ms,
            caps=self.caps,
        )


class _Row(msgspec.Struct, frozen=True):
    key: CellKey
    cell: Cell


class _File(msgspec.Struct, frozen=True, kw_only=True):
    cells: list[_Row]
    counts: FoldCounts
    places: list[tuple[PlaceKey, PlaceSums]]
    ages: dict[str, Moments]
    delivery: dict[str, Moments]
    log: LogCounts
    watermark_ms: int
    caps: dict[int, float]


def write_totals(totals: Totals, path: str) -> str:
    """Whole or not at all; `path` again."""
    rows = [_Row(key, cell) for key, cell in sorted(totals.tally.cells.items())]
    file = _File(
        cells=rows,
        counts=totals.tally.counts,
        places=sorted(totals.tally.recall.places.items(), key=lambda row: row[0]),
        ages=dict(sorted(totals.tally.recall.ages.items())),
        delivery=dict(sorted(totals.tally.delivery.items())),
        log=totals.log,
        watermark_ms=totals.watermark_ms,
        caps=totals.caps,
    )
    scratch = Path(path).with_suffix(".tmp")
    scratch.write_bytes(msgspec.json.encode(file, enc_hook=listed))
    scratch.replace(path)
    return path


def read_totals(path: Path) -> Totals:
    if not path.is_file():
        raise KeenstreamError("the job ended without a result: see its log above")
    file = msgspec.json.decode(path.read_bytes(), type=_File, dec_hook=array)
    recall, cells = RecallPath(dict(file.places), file.ages), {row.key: row.cell for row in file.cells}
    tally = Tally(cells, file.counts, recall, file.delivery)
    return Totals(tally=tally, log=file.log, watermark_ms=file.watermark_ms, caps=file.caps)


def listed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise NotImplementedError(type(value).__name__)


def array(kind: type, value: Any) -> Any:
    return np.asarray(value, dtype=np.float64)
