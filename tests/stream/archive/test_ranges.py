"""Ranges on disk: their layout, and that each record is in exactly one file whoever is killed or late."""

import os
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.archive import OFFSET, READER, archive_files
from stream.archive.columns import LeftOut
from stream.archive.ranges import STAGING, Ranges, RangeTaken
from tests.stream.archive.consumed import DAY, NOON, event_rows

TODAY, YESTERDAY = date(2026, 1, 5), date(2026, 1, 4)


def stored(folder: Path) -> list[int]:
    """The offsets of all rows in all files, with repetitions."""
    paths = archive_files(folder.parent, folder.name)
    return sorted(at for path in paths for at in pq.ParquetFile(path).read([OFFSET]).column(0).to_pylist())


def staged(folder: Path) -> list[Path]:
    return list((folder / STAGING).iterdir()) if (folder / STAGING).exists() else []


def commit(ranges: Ranges, first: int, last: int) -> None:
    half = (first + last) // 2
    days = [(TODAY, event_rows(range(first, half + 1))), (YESTERDAY, event_rows(range(half + 1, last + 1), NOON - DAY))]
    ranges.commit(first, last, days)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "user-events"


def test_the_layout_of_files_is_a_contract(folder: Path) -> None:
    late = event_rows([7], 0)
    days = [(TODAY, event_rows([5, 9])), (YESTERDAY, event_rows([6], NOON - DAY)), (None, late)]
    manifest = Ranges(folder, 3).commit(0, 9, days, LeftOut(tombstones=2))
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.parquet"))
    assert files == [
        "date=2026-01-04/3-0-9.parquet",
        "date=2026-01-05/3-0-9.parquet",
        "implausible-date/3-0-9.parquet",
    ]
    assert [file.name for file in manifest.files] == [files[1], files[0], files[2]]
    metadata = pq.read_metadata(folder / files[1])
    assert metadata.row_group(0).column(0).compression == "ZSTD"
    assert pq.read_schema(folder / files[1]).field(READER).type == "string"
    assert staged(folder) == []


def test_the_position_follows_the_last_range_and_its_records_that_are_in_no_file(folder: Path) -> None:
    ranges = Ranges(folder, 0)
    assert (ranges.position(), list(ranges.manifests())) == (0, [])
    ranges.commit(0, 11, [(TODAY, event_rows([3]))], LeftOut(tombstones=8))
    ranges.commit(12, 20, [], LeftOut(tombstones=9))
    assert Ranges(folder, 0).position() == 21
    assert Ranges(folder, 1).position() == 0  # partitions do not know each other
    assert [manifest.rows for manifest in ranges.manifests()] == [1, 0]


def test_a_range_that_exists_is_not_written_again(folder: Path) -> None:
    commit(Ranges(folder, 0), 0, 9)
    with pytest.raises(RangeTaken):
        commit(Ranges(folder, 0), 0, 5)
    assert stored(folder) == list(range(10))
    assert staged(folder) == []


def test_offsets_that_the_broker_lost_are_a_range_without_files(folder: Path) -> None:
    ranges = Ranges(folder, 0)
    ranges.commit_absent(99)
    assert ranges.position() == 100
    assert next(ranges.manifests()).absent
    assert staged(folder) == []


class Killed(BaseException):
    """Raised by every call that would change the file system from some step on: no clean-up can run, as by SIGKILL."""


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only the first `step` such calls through."""
    calls = iter(range(step))

    def limited(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            if next(calls, None) is None:
                raise Killed
            return call(*arguments, **named)

        return counted

    for owner, name in ((os, "link"), (os, "fsync"), (Path, "rename"), (Path, "unlink")):
        monkeypatch.setattr(owner, name, limited(getattr(owner, name)))


def killed(folder: Path, step: int) -> bool:
    """Whether a worker that is killed at `step` did not get to the end of its range."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        kill_at(step, monkeypatch)
        try:
            commit(Ranges(folder, 0), 10, 29)
        except Killed:
            return True
    return False


def test_a_worker_killed_at_any_step_leaves_each_record_in_one_file(tmp_path: Path) -> None:
    """Steps in order: sync and link of both days and the manifest, renames, clean-up."""
    before_range = after_range = 0
    for step in range(100):
        folder = tmp_path / str(step) / "user-events"
        commit(Ranges(folder, 0), 0, 9)
        if not killed(folder, step):
            break
        assert len(stored(folder)) == len(set(stored(folder)))  # also before anything is mended
        restarted = Ranges(folder, 0)
        restarted.settle()
        if restarted.position() == 10:  # killed before the range existed: its records are read again
            before_range += 1
            commit(restarted, 10, 24)
            commit(restarted, 25, 29)
        else:
            after_range += 1
        assert restarted.position() == 30
        assert stored(folder) == list(range(30))
        assert staged(folder) == []
    assert (before_range, after_range) == (4, 6)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 7), st.booleans()), min_size=1, max_size=15))
def test_workers_that_all_believe_to_own_a_partition_write_each_record_once(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[int, int, bool]]
) -> None:
    """Three workers, each at the position that it last saw; a move is a worker that writes some records, or looks."""
    folder = tmp_path_factory.mktemp("archive") / "user-events"
    workers = [Ranges(folder, 0) for _ in range(3)]
    positions = [0, 0, 0]
    for number, length, looks in moves:
        if looks:
            positions[number] = workers[number].position()
        first = positions[number]
        try:
            commit(workers[number], first, first + length - 1)
        except RangeTaken:
            workers[number].settle()
            positions[number] = workers[number].position()
        else:
            positions[number] = first + length
    assert stored(folder) == list(range(workers[0].position()))
    assert staged(folder) == []


def test_what_another_worker_may_still_commit_is_not_deleted(folder: Path) -> None:
    ranges = Ranges(folder, 0)
    commit(ranges, 0, 9)
    waiting, useless = folder / STAGING / "0-10-19-mark-x.tmp", folder / STAGING / "0-0-4-mark-x.tmp"
    foreign = folder / STAGING / "1-0-4-mark-x.tmp"
    for path in (waiting, useless, foreign):
        path.touch()
    ranges.settle()
    assert sorted(staged(folder)) == sorted([waiting, foreign])
    commit(ranges, 10, 12)
    assert staged(folder) == [foreign]
