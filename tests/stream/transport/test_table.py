"""The store of a state table, and its rows in a real changelog."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from faust.types.tuples import TP

from schemas.errors import UsageError
from stream.transport import StateTable, create_app


class Row(NamedTuple):
    offset: int
    key: bytes
    value: bytes | None


@pytest.fixture
def table(tmp_path: Path) -> StateTable:
    return create_app("app", "127.0.0.1:1", data_folder=tmp_path).state_table("t", 3)


def changelog_tp(partition: int) -> TP:
    return TP("app-t-changelog", partition)


def test_restored_rows_are_read_by_partition(table: StateTable) -> None:
    table.restore(changelog_tp(1), [Row(0, b"a", b"1"), Row(4, b"b", b"2"), Row(9, b"a", b"3")])
    assert table.row(1, b"a") == b"3"
    assert table.row(0, b"a") is None
    assert dict(table.rows(1)) == {b"a": b"3", b"b": b"2"}
    assert table[b"b"] == b"2"
    assert len(table) == 2


def test_a_tombstone_removes_a_row(table: StateTable) -> None:
    table.restore(changelog_tp(0), [Row(0, b"a", b"1"), Row(1, b"a", None), Row(2, b"never", None)])
    assert b"a" not in table
    assert table.data.persisted_offset(changelog_tp(0)) == 2


def test_rows_that_are_applied_already_change_nothing(table: StateTable) -> None:
    table.restore(changelog_tp(0), [Row(5, b"a", b"new")])
    table.restore(changelog_tp(0), [Row(3, b"a", b"old"), Row(5, b"a", b"again")])
    assert table.row(0, b"a") == b"new"
    assert table.data.persisted_offset(changelog_tp(0)) == 5


async def test_a_lost_partition_is_forgotten_and_read_anew(table: StateTable) -> None:
    for partition in range(2):
        table.restore(changelog_tp(partition), [Row(0, b"%d" % partition, b"v")])
    await table.data.on_rebalance({changelog_tp(1), TP("events", 0)}, {changelog_tp(0)}, set())
    assert table.row(0, b"0") is None
    assert table.data.persisted_offset(changelog_tp(0)) is None
    assert table.row(1, b"1") == b"v"


def test_writing_by_item_says_how_to_write(table: StateTable) -> None:
    with pytest.raises(UsageError, match=r"await table.write"):
        table[b"a"] = b"1"


def test_every_partition_holds_its_own_rows(table: StateTable) -> None:
    changes: Any = {b"a": b"1", b"b": None}
    table.data.apply(2, changes)
    assert dict(table.rows(2)) == {b"a": b"1"}
    assert table.rows(0) == {}
