"""Which day a row belongs to: the UTC day of its own time, when that can be."""

from datetime import UTC, date, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.archive import ARRIVED

DAY_MS = 86_400_000
EARLIEST_MS = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp() * 1000)  # 1970 is what a producer without a clock sends

Milliseconds = npt.NDArray[np.int64]


def split_by_day(table: pa.Table, time_field: str, *, now_ms: int, skew_ms: int) -> list[tuple[date | None, pa.Table]]:
    """The rows of each day, in order of days, then those whose time cannot be (None).

    Plausible is a time from 2000 on and at most `skew_ms` after the record's arrival, by the earlier of the broker's
    and our clock: the profile worker refuses the same events, so an offline fold of the days sees what it saw.
    """
    happened, arrived = _milliseconds(table, time_field), _milliseconds(table, ARRIVED)
    latest = np.minimum(np.where(arrived > 0, arrived, now_ms), now_ms) + skew_ms
    plausible = (happened >= EARLIEST_MS) & (happened <= latest)
    days = np.where(plausible, happened // DAY_MS, -1)
    return [(_day(number), table.filter(pa.array(days == number))) for number in _in_order(days)]


def _in_order(days: Milliseconds) -> list[int]:
    found = [int(number) for number in np.unique(days)]
    return [*(number for number in found if number >= 0), *(number for number in found if number < 0)]


def _day(number: int) -> date | None:
    return datetime.fromtimestamp(number * DAY_MS / 1000, UTC).date() if number >= 0 else None


def _milliseconds(table: pa.Table, name: str) -> Milliseconds:
    return table.column(name).cast(pa.int64()).to_numpy()  # type: ignore[no-any-return]  # pyarrow is untyped here
