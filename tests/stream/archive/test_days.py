"""Which day a row belongs to."""

from datetime import date

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.archive import ARRIVED, TIME
from stream.archive.days import EARLIEST_MS, split_by_day
from tests.stream.archive.consumed import DAY, HOUR, NOON

SKEW = 300_000


def rows(*times: tuple[int, int]) -> pa.Table:
    happened, arrived = zip(*times, strict=True)
    return pa.table({"at": pa.array(happened, TIME), ARRIVED: pa.array(arrived, TIME)})


def days(table: pa.Table, now_ms: int = NOON) -> list[date | None]:
    return [day for day, _ in split_by_day(table, "at", now_ms=now_ms, skew_ms=SKEW)]


@pytest.mark.parametrize(
    ("happened", "day"),
    [
        (NOON, date(2026, 1, 5)),
        (NOON - 40 * DAY, date(2025, 11, 26)),  # late: its own day
        (EARLIEST_MS, date(2000, 1, 1)),
        (EARLIEST_MS - 1, None),
        (0, None),  # 1970
        (NOON + SKEW, date(2026, 1, 5)),
        (NOON + SKEW + 1, None),
        (4_070_908_800_000, None),  # 2099
    ],
)
def test_the_day_is_that_of_the_records_own_time_when_it_can_be(happened: int, day: date | None) -> None:
    assert days(rows((happened, NOON))) == [day]


def test_the_future_is_judged_by_the_earlier_of_the_brokers_clock_and_ours() -> None:
    ahead = NOON + HOUR
    assert days(rows((ahead, NOON)), now_ms=NOON + 2 * HOUR) == [None]  # archived later than it arrived
    assert days(rows((ahead, NOON + 2 * HOUR)), now_ms=NOON) == [None]  # a producer's clock that is ahead
    assert days(rows((ahead, -1)), now_ms=ahead) == [date(2026, 1, 5)]  # a broker that gives no time


@settings(deadline=None)
@given(st.lists(st.integers(-(10**12), 10**13), min_size=1, max_size=40))
def test_each_row_is_in_exactly_one_day_in_its_order(times: list[int]) -> None:
    table = rows(*((at, NOON) for at in times)).append_column("n", pa.array(range(len(times))))
    parts = split_by_day(table, "at", now_ms=NOON, skew_ms=SKEW)
    numbers = [part.column("n").to_pylist() for _, part in parts]
    assert sorted(number for part in numbers for number in part) == list(range(len(times)))
    assert all(part == sorted(part) for part in numbers)
    assert len({day for day, _ in parts}) == len(parts)
