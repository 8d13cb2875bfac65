"""Users by cell: everything that a report says is a function of these cells, and cells add up.

A cell is a phase, the day of first exposure, an arm, and cold or warm at first exposure. Totals, segments, strata, the
path over days and the daily sample ratio are sums of cells, so one pass over the users serves all of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from offline.experiments.definition import Metric
from offline.experiments.estimates import COLUMNS
from offline.experiments.fold import FoldCounts
from offline.experiments.moments import Floats, Moments, added
from offline.experiments.quantiles import QuantileSketch
from offline.experiments.recall_path import RecallPath

Positions = NDArray[np.intp]
_FOUR: Final = ("numerator", "denominator", "pre_numerator", "pre_denominator")


class CellKey(msgspec.Struct, frozen=True, order=True):
    phase: int
    day: int  # of first exposure, since the experiment's start
    arm: str
    cold: bool


class Cell(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """`exposed` are all users; bots, those in several arms and those whose window has not passed are in no metric."""

    exposed: int = 0
    crossed: int = 0  # seen in more than one arm; `arm` is the first
    waiting: int = 0  # their window ends after the watermark
    triggered: int = 0
    bots: int = 0
    capped: tuple[int, ...] = ()  # users cut, for each metric
    moments: tuple[Moments, ...] = ()  # for each metric
    sketches: tuple[bytes | None, ...] = ()  # for each metric: of its numerator, when it is a quantile
    bot_moments: tuple[Moments, ...] = ()  # of users who are in no metric as bots alone
    bot_sketches: tuple[bytes | None, ...] = ()

    def __add__(self, other: "Cell") -> "Cell":
        if not self.moments or not other.moments:
            return self if self.moments else other
        return Cell(
            exposed=self.exposed + other.exposed,
            crossed=self.crossed + other.crossed,
            waiting=self.waiting + other.waiting,
            triggered=self.triggered + other.triggered,
            bots=self.bots + other.bots,
            capped=tuple(a + b for a, b in zip(self.capped, other.capped, strict=True)),
            moments=tuple(a + b for a, b in zip(self.moments, other.moments, strict=True)),
            sketches=tuple(_both(a, b) for a, b in zip(self.sketches, other.sketches, strict=True)),
            bot_moments=tuple(a + b for a, b in zip(self.bot_moments, other.bot_moments, strict=True)),
            bot_sketches=tuple(_both(a, b) for a, b in zip(self.bot_sketches, other.bot_sketches, strict=True)),
        )

    def with_bots(self) -> "Cell":
        """As if nobody had been taken for a bot."""
        return msgspec.structs.replace(
            self,
            bots=0,
            moments=tuple(a + b for a, b in zip(self.moments, self.bot_moments, strict=True)),
            sketches=tuple(_both(a, b) for a, b in zip(self.sketches, self.bot_sketches, strict=True)),
        )


class Tally(msgspec.Struct, frozen=True, eq=False):
    """The accumulator of the Beam job: cells and the counts of log rows."""

    cells: dict[CellKey, Cell]
    counts: FoldCounts = FoldCounts()
    recall: RecallPath = RecallPath()
    delivery: dict[str, Moments] = {}  # by arm: what became of the outcomes (delivery.py)

    def __add__(self, other: "Tally") -> "Tally":
        cells = dict(self.cells)
        for key, cell in other.cells.items():
            cells[key] = cells[key] + cell if key in cells else cell
        delivery = added(self.delivery, other.delivery)
        return Tally(cells, self.counts + other.counts, self.recall + other.recall, delivery)

    def with_bots(self) -> "Tally":
        """For the sensitivity of the answer: the readers taken for bots are counted too."""
        return msgspec.structs.replace(self, cells={key: cell.with_bots() for key, cell in self.cells.items()})

    def total(self, wanted: Callable[[CellKey], bool]) -> Cell:
        """The sum of the cells with a wanted key."""
        return _sum(cell for key, cell in sorted(self.cells.items()) if wanted(key))


def tally_users(users: pa.Table, metrics: Sequence[Metric], caps: Mapping[int, float], counts: FoldCounts) -> Tally:
    """`users` as `fold_users` gives them; `caps` by metric number, from `caps_of`."""
    keys = [users[name].to_numpy(zero_copy_only=False) for name in ("phase", "day", "arm", "cold")]
    rows = _Rows(users, metrics, caps)
    cells = {}
    for at in _groups(keys):
        phase, day, arm, cold = (column[at[0]] for column in keys)
        cells[CellKey(int(phase), int(day), str(arm), bool(cold))] = rows.cell(at)
    return Tally(cells, counts)


class _Rows:
    """The columns of a table of users as arrays."""

    def __init__(self, users: pa.Table, metrics: Sequence[Metric], caps: Mapping[int, float]) -> None:
        self._metrics = metrics
        self._counted, self._only_bots = counted_users(users), counted_users(users, bots=True)
        self._crossed = users["arms"].to_numpy() > 1
        self._mature = users["mature"].to_numpy(zero_copy_only=False)
        self._triggered = users["triggered"].to_numpy(zero_copy_only=False)
        self._bots = users["bot"].to_numpy(zero_copy_only=False)
        self._columns = [_capped(users, number, caps.get(number)) for number in range(len(metrics))]
        self._cut = [_column(users, "numerator", number) > caps.get(number, np.inf) for number in range(len(metrics))]

    def cell(self, at: Positions) -> Cell:
        counted, bots = at[self._counted[at]], at[self._only_bots[at]]
        return Cell(
            exposed=len(at),
            crossed=int(self._crossed[at].sum()),
            waiting=int((~self._mature[at]).sum()),
            triggered=int(self._triggered[at].sum()),
            bots=int(self._bots[at].sum()),
            capped=tuple(int(cut[counted].sum()) for cut in self._cut),
            moments=tuple(Moments.of(columns[counted]) for columns in self._columns),
            sketches=tuple(self._sketch(number, counted) for number in range(len(self._metrics))),
            bot_moments=tuple(Moments.of(columns[bots]) for columns in self._columns),
            bot_sketches=tuple(self._sketch(number, bots) for number in range(len(self._metrics))),
        )

    def _sketch(self, number: int, counted: Positions) -> bytes | None:
        if self._metrics[number].quantile is None:
            return None
        return QuantileSketch.of(self._columns[number][counted, 0]).to_bytes()


def _groups(
    keys: Sequence[NDArray[Any]],
) -> list[Positions]:
    """The row numbers of each distinct key."""
    if not len(keys[0]):
        return []
    codes = np.stack([np.unique(column, return_inverse=True)[1] for column in keys], axis=1)
    _, group = np.unique(codes, axis=0, return_inverse=True)
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def counted_users(users: pa.Table, bots: bool = False) -> NDArray[np.bool_]:
    """Users who are in the metrics: no bot, one arm, and a window that has passed; `bots`: those who only are one."""
    mature, bot = (users[name].to_numpy(zero_copy_only=False) for name in ("mature", "bot"))
    counted: NDArray[np.bool_] = (users["arms"].to_numpy() == 1) & mature & (bot == bots)
    return counted


def _column(users: pa.Table, name: str, number: int) -> Floats:
    found: Floats = users[f"{name}_{number}"].to_numpy()
    return found


def _capped(users: pa.Table, number: int, cap: float | None) -> Floats:
    """[n, COLUMNS]; the covariate is cut at the same value as the metric."""
    rows = np.column_stack([_column(users, name, number) for name in _FOUR]).reshape(-1, COLUMNS)
    if cap is not None:
        rows[:, [0, 2]] = np.minimum(rows[:, [0, 2]], cap)
    return rows


def _both(first: bytes | None, second: bytes | None) -> bytes | None:
    return (QuantileSketch(first) + QuantileSketch(second)).to_bytes() if first and second else first or second


def _sum(cells: Iterable[Cell]) -> Cell:
    total = Cell()
    for cell in cells:
        total = total + cell
    return total
