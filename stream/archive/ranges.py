"""The ranges of one Kafka partition: how each record comes to be in exactly one file, whatever is killed and when.

A range [first, last] of offsets may hold records of several days, so of several files, and no file system renames two
files at once. What makes a range exist is therefore one small file, its manifest, `_ranges/<partition>/<first>.json`:

1. the rows of each day are written to `_staging/` under names that nobody else uses, and synced;
2. the manifest, which lists them, is linked to its place. A link that exists is never replaced, so this is a
   compare-and-swap: of two workers that both believe to own the partition one wins, and the other drops its rows;
3. the staged files are renamed into the folders of their days.

A worker's position is the end of the last manifest, never Kafka's committed offset, which is written after step 3 and
only tells others how far the archive is. So each manifest begins where another ends and no two begin alike: the ranges
have no gap and no overlap. A crash before 2 leaves staged files without a manifest, which are deleted once the range
has been written by somebody; a crash after 2 leaves staged files with one, which `settle` renames at the next start.
A rename can be repeated, and a file is in the folder of its day only if its range exists. The first range begins at 0:
offsets that the broker no longer has are a range that is marked `absent`.

Needs a file system with atomic rename and hard links, shared by all archive workers.
"""

import os
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.archive import READER, ArchiveFile
from schemas.errors import KeenstreamError
from stream.archive.columns import NOTHING, LeftOut

RANGES, STAGING = "_ranges", "_staging"
_STAGED = re.compile(r"(?P<partition>\d+)-(?P<first>\d+)-.*\.tmp")


class RangeTaken(KeenstreamError):
    """Another worker has written the range that begins here."""


class WrittenFile(msgspec.Struct, frozen=True, kw_only=True):
    """One day of a range."""

    name: str  # below the topic's folder
    staged: str  # in the staging folder
    rows: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One range. Rows and records left out need not add up to its length: offsets may have holes."""

    first: int
    last: int
    files: tuple[WrittenFile, ...] = ()
    left_out: LeftOut = NOTHING
    absent: bool = False  # the broker did not have these offsets any more

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)


class Ranges:
    """The ranges of `partition` of a topic below `folder` (the topic's own). Any number of processes may have one."""

    def __init__(self, folder: Path, partition: int) -> None:
        self.folder, self.partition = folder, partition
        self._manifests = folder / RANGES / str(partition)
        self._staging = folder / STAGING

    def position(self) -> int:
        """The offset that follows the last range."""
        last = self.last()
        return last.last + 1 if last else 0

    def manifests(self) -> Iterator[Manifest]:
        """In order."""
        return (self._read(name) for name in sorted(_names(self._manifests)))

    def last(self) -> Manifest | None:
        names = _names(self._manifests)
        return self._read(max(names)) if names else None

    def commit(
        self, first: int, last: int, days: Sequence[tuple[date | None, pa.Table]], left_out: LeftOut = NOTHING
    ) -> Manifest:
        """Make the range exist and its files visible. Raises RangeTaken, leaving nothing, when it exists already."""
        mark = f"{self.partition}-{first}-{last}-{uuid.uuid4().hex}"
        files = tuple(self._file(day, first, last, mark, table.num_rows) for day, table in days if table.num_rows)
        manifest = Manifest(first=first, last=last, files=files, left_out=left_out)
        tables = [table for _, table in days if table.num_rows]
        self._staging.mkdir(parents=True, exist_ok=True)
        try:
            for file, table in zip(files, tables, strict=True):
                write_parquet(table, self._staging / file.staged)
            self._link(manifest, mark)
        except BaseException:
            for file in files:
                (self._staging / file.staged).unlink(missing_ok=True)
            raise
        self.settle()
        return manifest

    def commit_absent(self, last: int) -> Manifest:
        """Say that the offsets from the position to `last` are not to be had any more."""
        manifest = Manifest(first=self.position(), last=last, absent=True)
        self._link(manifest, f"{self.partition}-{manifest.first}-{last}-{uuid.uuid4().hex}")
        return manifest

    def settle(self) -> None:
        """Rename what belongs to a range, and delete what a range has made useless. What may still become one stays."""
        position = self.position()
        for name in _names(self._staging):
            found = _STAGED.fullmatch(name)
            if found is None or int(found["partition"]) != self.partition or int(found["first"]) >= position:
                continue
            manifest = self._read(_manifest_name(int(found["first"])))
            target = next((file.name for file in manifest.files if file.staged == name), None)
            if target is None:
                (self._staging / name).unlink(missing_ok=True)
            else:
                self._publish(self._staging / name, self.folder / target)

    def pending(self, manifest: Manifest) -> set[str]:
        """The names of files of a range that are not renamed yet."""
        return {file.name for file in manifest.files if (self._staging / file.staged).exists()}

    def _file(self, day: date | None, first: int, last: int, mark: str, rows: int) -> WrittenFile:
        name = ArchiveFile(day, self.partition, first, last).name
        return WrittenFile(name=name, staged=f"{mark}-{day or 'none'}.tmp", rows=rows)

    def _link(self, manifest: Manifest, mark: str) -> None:
        for needed in (self._manifests, self._staging):
            needed.mkdir(parents=True, exist_ok=True)
        scratch = self._staging / f"{mark}-manifest.tmp"
        with scratch.open("wb") as out:
            out.write(msgspec.json.encode(manifest))
            sync(out.fileno())
        try:
            os.link(scratch, self._manifests / _manifest_name(manifest.first))
        except FileExistsError:
            raise RangeTaken(f"the range of partition {self.partition} from {manifest.first} exists") from None
        finally:
            scratch.unlink(missing_ok=True)
        sync_folder(self._manifests)

    def _publish(self, staged: Path, target: Path) -> None:
        target.parent.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # another worker was first
            staged.rename(target)
        sync_folder(target.parent)

    def _read(self, name: str) -> Manifest:
        return msgspec.json.decode((self._manifests / name).read_bytes(), type=Manifest)


def _names(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.exists() else []


def _manifest_name(first: int) -> str:
    return f"{first:020d}.json"


def write_parquet(table: pa.Table, path: Path) -> None:
    """A whole file, on the disk when this returns. Its bloom filter tells at once that a reader is not in it."""
    blooms = {}
    if READER in table.column_names:
        blooms = {READER: {"ndv": max(1, pc.count_distinct(table.column(READER)).as_py())}}
    pq.write_table(table, path, compression="zstd", bloom_filter_options=blooms or None)
    with path.open("rb") as written:
        sync(written.fileno())


def sync(descriptor: int) -> None:
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
