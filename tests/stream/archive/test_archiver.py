"""The partitions that one worker holds: what it writes, gives up, and finds written by others."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from schemas.archive import OFFSET, archive_files
from schemas.codecs import JSON_CODECS
from schemas.config import Archive
from schemas.errors import Unavailable, UsageError
from schemas.names import Topic
from stream.archive.archiver import Archiver, Key
from stream.archive.columns import LeftOut
from stream.archive.erasing import find_in_archive
from stream.archive.ranges import STAGING, Ranges
from stream.producer import Outgoing
from tests.stream.archive.consumed import NOON, Consumed, consumed

KEY = Key(Topic.USER_EVENTS, 0)
OTHER = Key(Topic.USER_EVENTS, 1)


class Erasures:
    """The twin of ErasedReaders: what is asked for, by the look at which it is seen."""

    def __init__(self, *news: Mapping[str, int]) -> None:
        self._news, self._new = list(news), dict[str, int]()
        self.before: dict[str, int] = {}
        self.away = False

    def catch_up(self) -> Mapping[str, int]:
        if self.away:
            raise Unavailable("no broker")
        if self._news:
            self._new.update(self._news.pop(0))
            self.before.update(self._new)
        return self._new

    def applied(self) -> None:
        self._new = {}


class Worker:
    """An archiver with twins around it."""

    def __init__(self, folder: Path, *news: Mapping[str, int], roll_records: int = 5) -> None:
        self.erasures, self.letters, self.now_ms = Erasures(*news), list[Outgoing](), NOON
        self.archiver = Archiver(
            Archive(roll_records=roll_records), folder, JSON_CODECS, self.erasures, self._send, lambda: self.now_ms, {}
        )
        self.folder = folder

    def _send(self, letters: Sequence[Outgoing]) -> None:
        self.letters += letters

    def hold(self, **offsets: tuple[int, int]) -> dict[Key, int]:
        keys = {"key": KEY, "other": OTHER}
        return self.archiver.hold({keys[name]: ends for name, ends in offsets.items()})

    def write(self, *, everything: bool = False) -> dict[Key, int]:
        return dict(self.archiver.write_due(everything=everything))

    def stored(self) -> list[int]:
        paths = archive_files(self.folder, Topic.USER_EVENTS)
        return sorted(at for path in paths for at in pq.ParquetFile(path).read([OFFSET]).column(0).to_pylist())


def take(worker: Worker, first: int, last: int, key: Key = KEY) -> None:
    worker.archiver.take(key, [consumed(offset) for offset in range(first, last + 1)])


def test_a_range_is_written_when_it_is_due_and_the_offset_behind_it_is_told(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    assert worker.hold(key=(0, 9)) == {KEY: 0}
    take(worker, 0, 3)
    assert worker.write() == {}
    take(worker, 4, 6)
    assert worker.write() == {KEY: 7}
    assert worker.stored() == list(range(7))
    take(worker, 7, 8)
    assert worker.write(everything=True) == {KEY: 9}


def test_what_is_in_hand_survives_a_change_of_partitions_that_leaves_its_own(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    worker.hold(key=(0, 9), other=(0, 9))
    take(worker, 0, 3)
    assert worker.hold(key=(0, 9)) == {KEY: 4}
    take(worker, 4, 4)
    assert worker.write() == {KEY: 5}


def test_what_another_worker_has_written_meanwhile_is_dropped(tmp_path: Path) -> None:
    worker, another = Worker(tmp_path), Worker(tmp_path)
    for each in (worker, another):
        each.hold(key=(0, 20))
        take(each, 0, 6)
    assert another.write() == {KEY: 7}
    assert worker.hold(key=(0, 20)) == {KEY: 7}
    assert worker.write(everything=True) == {}
    assert worker.stored() == list(range(7))


def test_a_worker_that_comes_second_goes_back_to_where_the_archive_ends(tmp_path: Path) -> None:
    worker, another = Worker(tmp_path), Worker(tmp_path)
    for each in (worker, another):
        each.hold(key=(0, 20))
    take(another, 0, 6)
    another.write()
    take(worker, 0, 9)
    assert worker.write() == {KEY: 7}
    take(worker, 7, 12)
    assert worker.write() == {KEY: 13}
    assert worker.stored() == list(range(13))


def test_offsets_that_the_broker_has_no_more_are_told_apart_from_holes(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    worker.hold(key=(0, 50))
    take(worker, 0, 2)
    assert worker.hold(key=(40, 50)) == {KEY: 40}
    assert worker.stored() == [0, 1, 2]  # the only place where they still were
    ranges = [(row.first, row.last, row.absent) for row in Ranges(tmp_path / Topic.USER_EVENTS, 0).manifests()]
    assert ranges == [(0, 2, False), (3, 39, True)]


def test_an_archive_ahead_of_its_topic_is_refused(tmp_path: Path) -> None:
    Ranges(tmp_path / Topic.USER_EVENTS, 0).commit_absent(99)
    with pytest.raises(UsageError, match="made anew"):
        Worker(tmp_path).hold(key=(0, 50))


def test_dead_letters_are_sent_before_their_range_is_written(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    worker.hold(key=(0, 9))
    worker.archiver.take(KEY, [consumed(0), Consumed(1, b"{")])
    worker.write(everything=True)
    assert [letter.key for letter in worker.letters] == [b"user-events:0:1"]
    (manifest,) = Ranges(tmp_path / Topic.USER_EVENTS, 0).manifests()
    assert (manifest.last, manifest.left_out) == (1, LeftOut(undecodable=1))


def test_records_of_an_erased_reader_are_not_written(tmp_path: Path) -> None:
    worker = Worker(tmp_path, {"ann": NOON})
    worker.hold(key=(0, 9))
    later = consumed(2, NOON + 1, "ann")._replace(timestamp=NOON + 1)
    worker.archiver.take(KEY, [consumed(0), consumed(1, NOON, "ann"), later])
    worker.write(everything=True)
    assert worker.stored() == [0, 2]
    (manifest,) = Ranges(tmp_path / Topic.USER_EVENTS, 0).manifests()
    assert manifest.left_out == LeftOut(erased=1)


def test_a_broken_record_of_before_an_erasure_comes_back_by_no_letter(tmp_path: Path) -> None:
    worker = Worker(tmp_path, {"ann": NOON})
    worker.hold(key=(0, 9))
    keys = (b"ann", b"bob", None, b"ann")
    broken = [Consumed(at, b"{", key, timestamp=NOON + (at == 3)) for at, key in enumerate(keys)]
    worker.archiver.take(KEY, broken)
    worker.write(everything=True)
    assert [letter.key for letter in worker.letters] == [b"user-events:0:1", b"user-events:0:2", b"user-events:0:3"]
    (manifest,) = Ranges(tmp_path / Topic.USER_EVENTS, 0).manifests()
    assert manifest.left_out == LeftOut(undecodable=4)


def test_an_erasure_that_comes_while_a_range_is_written_is_made_good(tmp_path: Path) -> None:
    worker = Worker(tmp_path, {}, {"ann": NOON})  # seen by the second look only: when the files are there
    worker.hold(key=(0, 9))
    worker.archiver.take(KEY, [consumed(0), consumed(1, NOON, "ann")])
    worker.write(everything=True)
    assert worker.stored() == [0]


def test_who_takes_over_makes_good_what_its_predecessor_did_not_come_to(tmp_path: Path) -> None:
    first = Worker(tmp_path)
    first.hold(key=(0, 9))
    first.archiver.take(KEY, [consumed(0), consumed(1, NOON, "ann")])
    first.write(everything=True)
    second = Worker(tmp_path)
    second.erasures.before = {"ann": NOON}  # asked for before, and searched for by all but the first
    second.hold(key=(0, 9))
    assert find_in_archive(tmp_path, "ann")[Topic.USER_EVENTS] == 0


def test_while_erasures_cannot_be_read_nothing_is_written_and_nothing_is_lost(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    worker.hold(key=(0, 9))
    take(worker, 0, 6)
    worker.erasures.away = True
    with pytest.raises(Unavailable):
        worker.write()
    assert worker.stored() == []
    worker.erasures.away = False
    assert worker.write() == {KEY: 7}


def test_a_part_written_range_of_a_killed_worker_is_finished_by_the_next(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    worker.hold(key=(0, 9))
    take(worker, 0, 4)
    worker.write()
    (path,) = archive_files(tmp_path, Topic.USER_EVENTS)
    (manifest,) = Ranges(tmp_path / Topic.USER_EVENTS, 0).manifests()
    path.rename(tmp_path / Topic.USER_EVENTS / STAGING / manifest.files[0].staged)  # as before the rename
    assert Worker(tmp_path).hold(key=(0, 9)) == {KEY: 5}
    assert worker.stored() == list(range(5))
