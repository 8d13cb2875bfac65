"""What is proved of a partition, and every way in which the proof can fail."""

from datetime import date
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.archive import ArchiveFile, archive_files, parse_file
from schemas.names import Topic
from stream.archive.archiver import Key
from stream.archive.erasing import erase_from_archive
from stream.archive.ranges import Manifest, Ranges, write_parquet
from stream.archive.verifying import BrokerOffsets, PartitionProof, chain_faults, prove
from tests.stream.archive.consumed import DAY, NOON, event_rows

TODAY, YESTERDAY = date(2026, 1, 5), date(2026, 1, 4)
KEY = Key(Topic.USER_EVENTS, 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ranges = Ranges(tmp_path / KEY.topic, 0)
    ranges.commit(0, 9, [(TODAY, event_rows([0, 4, 9])), (YESTERDAY, event_rows([3], NOON - DAY))])
    ranges.commit(10, 19, [(TODAY, event_rows(range(10, 20)))])
    return tmp_path


def proof(folder: Path, end: int = 20, beginning: int = 0, committed: int | None = 20) -> PartitionProof:
    manifests = list(Ranges(folder / KEY.topic, 0).manifests())
    files = {file.name: file for path in archive_files(folder, KEY.topic) if (file := parse_file(path))}
    return prove(folder, KEY, manifests, files, BrokerOffsets(beginning, end), committed)


def file(folder: Path, name: str) -> Path:
    return folder / KEY.topic / name


def test_a_whole_partition_has_no_faults(folder: Path) -> None:
    whole = proof(folder, end=25)
    assert (whole.ranges, whole.files, whole.rows, whole.next, whole.behind) == (2, 3, 14, 20, 5)
    assert whole.faults == ()


def test_a_missing_file_is_a_fault_unless_it_is_about_to_be_renamed(folder: Path) -> None:
    path = file(folder, "date=2026-01-04/0-0-9.parquet")
    manifest = next(Ranges(folder / KEY.topic, 0).manifests())
    staged = next(row.staged for row in manifest.files if "01-04" in row.name)
    path.rename(folder / KEY.topic / "_staging" / staged)
    assert proof(folder).faults == ()
    (folder / KEY.topic / "_staging" / staged).unlink()
    assert proof(folder).faults == ("missing file: date=2026-01-04/0-0-9.parquet",)


def test_a_file_that_belongs_to_no_range_is_a_fault_and_one_ahead_of_them_is_not(folder: Path) -> None:
    write_parquet(event_rows([3]), file(folder, "date=2026-01-05/0-2-5.parquet"))
    write_parquet(event_rows([21]), file(folder, "date=2026-01-05/0-20-29.parquet"))  # of a range made just now
    assert proof(folder).faults == ("stray file: date=2026-01-05/0-2-5.parquet belongs to no range",)


def test_rows_out_of_their_range_lost_rows_and_doubled_rows_are_faults(folder: Path) -> None:
    path = file(folder, "date=2026-01-05/0-10-19.parquet")
    write_parquet(event_rows(range(11, 21)), path)
    assert proof(folder).faults == ("date=2026-01-05/0-10-19.parquet has rows out of its range",)
    write_parquet(event_rows(range(10, 18)), path)
    assert "has 8 rows and lost 0 to erasures; 10 were written" in proof(folder).faults[0]
    write_parquet(event_rows([*range(10, 19), 18]), path)
    assert proof(folder).faults == ("an offset between 10 and 19 is in two rows",)


def test_an_offset_in_two_days_of_a_range_is_a_fault(folder: Path) -> None:
    write_parquet(event_rows([4], NOON - DAY), file(folder, "date=2026-01-04/0-0-9.parquet"))
    assert proof(folder).faults == ("an offset between 0 and 9 is in two rows",)


def test_a_damaged_file_is_a_fault(folder: Path) -> None:
    file(folder, "date=2026-01-05/0-10-19.parquet").write_bytes(b"PAR1 and then nothing")
    assert "cannot be read" in proof(folder).faults[0]


def test_rows_that_were_erased_are_accounted_for(folder: Path) -> None:
    erase_from_archive(folder, "reader", NOON - 1)
    assert proof(folder).faults == ()
    assert proof(folder).rows == 13


def test_the_broker_can_contradict_the_files(folder: Path) -> None:
    assert "made anew" in proof(folder, end=15).faults[0]
    assert "deleted offsets 20 to 29" in proof(folder, beginning=30, end=40).faults[0]
    assert "offset 25 is committed, but only 20" in proof(folder, end=40, committed=25).faults[0]
    assert proof(folder, committed=None).faults == ()


def test_offsets_lost_in_the_middle_are_a_fault_and_those_before_the_archive_began_are_not(tmp_path: Path) -> None:
    ranges = Ranges(tmp_path / KEY.topic, 0)
    ranges.commit_absent(9)
    assert (proof(tmp_path, committed=None).faults, proof(tmp_path, committed=None).starts) == ((), 10)
    ranges.commit(10, 19, [(TODAY, event_rows(range(10, 20)))])
    ranges.commit_absent(29)
    assert "deleted offsets 20 to 29 before they were archived" in proof(tmp_path, end=40, committed=None).faults[0]


@given(st.lists(st.integers(1, 9), min_size=2, max_size=8), st.data())
def test_every_gap_and_overlap_of_a_chain_is_found(lengths: list[int], data: st.DataObject) -> None:
    chain, first = [], 0
    for length in lengths:
        chain.append(Manifest(first=first, last=first + length - 1))
        first += length
    assert list(chain_faults(chain)) == []
    place = data.draw(st.integers(1, len(chain) - 1))
    without = [*chain[:place], *chain[place + 1 :], Manifest(first=first, last=first)]
    assert [fault.partition(":")[0] for fault in chain_faults(without)] == ["gap"]
    longer = [*chain]
    longer[place - 1] = msgspec.structs.replace(chain[place - 1], last=chain[place].first)
    assert "overlap" in [fault.partition(":")[0] for fault in chain_faults(longer)]


def test_files_are_named_by_what_they_hold() -> None:
    assert ArchiveFile(TODAY, 0, 0, 9).name == "date=2026-01-05/0-0-9.parquet"
