"""Proof that the files hold what the broker had: no gap, no overlap, no row out of its range.

Runs beside working archivers: what is read first can only be behind what is read later, never ahead of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError

from schemas.archive import ARCHIVED, OFFSET, PARTITION, ArchiveFile, archive_files, parse_file
from schemas.config import Config
from schemas.errors import UsageError
from schemas.names import App
from stream.archive.archiver import Key
from stream.archive.columns import NOTHING, LeftOut
from stream.archive.erasing import erased_rows
from stream.archive.ranges import Manifest, Ranges
from stream.kafka_access import check_credentials, failure, kafka_python_options

TIMEOUT_MS = 5_000


class PartitionProof(msgspec.Struct, frozen=True, kw_only=True):
    """One partition. Offsets up to `next` (exclusive) are archived; `faults` is empty when all is proved."""

    topic: str
    partition: int
    ranges: int
    files: int
    rows: int  # in files now
    left_out: LeftOut
    starts: int  # the first offset that the broker still had
    next: int
    end: int  # the broker's
    committed: int | None
    faults: tuple[str, ...]

    @property
    def behind(self) -> int:
        return self.end - self.next


class BrokerOffsets(msgspec.Struct, frozen=True):
    """Of one partition."""

    beginning: int
    end: int


def verify_archive(
    folder: Path, config: Config, on_partition: Callable[[PartitionProof], None] = lambda _: None
) -> list[PartitionProof]:
    """Prove every partition of every archived topic. Raises UsageError without an archive, Unavailable without a
    broker."""
    if not folder.is_dir():
        raise UsageError(f"there is no archive in {folder}: `keenstream worker archive` writes one")
    partitions = [Key(topic, number) for topic in ARCHIVED for number in range(config.kafka.partitions)]
    with _admin(config) as admin:
        committed = _committed(admin, partitions)
        ranges = {key: list(Ranges(folder / key.topic, key.partition).manifests()) for key in partitions}
        files = {key: _files(folder, key) for key in partitions}
        offsets = _offsets(admin, partitions)
    proofs = []
    for key in partitions:
        proofs.append(prove(folder, key, ranges[key], files[key], offsets[key], committed.get(key)))
        on_partition(proofs[-1])
    return proofs


def prove(
    folder: Path,
    key: Key,
    manifests: Sequence[Manifest],
    files: Mapping[str, ArchiveFile],
    offsets: BrokerOffsets,
    committed: int | None,
) -> PartitionProof:
    """What the ranges, the files on disk and the broker say of one partition, held against each other."""
    position = manifests[-1].last + 1 if manifests else 0
    seen = [_RangeFiles(folder / key.topic, key.partition, manifest) for manifest in manifests]
    faults = [
        *chain_faults(manifests),
        *(fault for row in seen for fault in row.faults),
        *stray_faults(manifests, files),
        *broker_faults(position, offsets, committed),
    ]
    return PartitionProof(
        topic=key.topic,
        partition=key.partition,
        ranges=len(manifests),
        files=sum(row.files for row in seen),
        rows=sum(row.rows for row in seen),
        left_out=sum((manifest.left_out for manifest in manifests), NOTHING),
        starts=manifests[0].last + 1 if manifests and manifests[0].absent else 0,
        next=position,
        end=offsets.end,
        committed=committed,
        faults=tuple(faults),
    )


def chain_faults(manifests: Sequence[Manifest]) -> Iterator[str]:
    """Gaps and overlaps of ranges in order of their first offset, and offsets that were lost between two ranges."""
    expected = 0
    for manifest in manifests:
        if manifest.first > expected:
            yield f"gap: no range has offsets {expected} to {manifest.first - 1}"
        if manifest.first < expected or manifest.last < manifest.first:
            yield f"overlap: a range has offsets {manifest.first} to {manifest.last}, others go to {expected - 1}"
        if manifest.absent and manifest.first:
            yield f"lost: the broker deleted offsets {manifest.first} to {manifest.last} before they were archived"
        expected = max(expected, manifest.last + 1)


def stray_faults(manifests: Sequence[Manifest], files: Mapping[str, ArchiveFile]) -> Iterator[str]:
    """Files that belong to no range. One that begins where the ranges end may be of a range that is newer than they."""
    known = {file.name for manifest in manifests for file in manifest.files}
    position = manifests[-1].last + 1 if manifests else 0
    for name, file in files.items():
        if name not in known and file.first < position:
            yield f"stray file: {name} belongs to no range"


def broker_faults(position: int, offsets: BrokerOffsets, committed: int | None) -> Iterator[str]:
    if position > offsets.end:
        yield f"ahead: archived to offset {position - 1}, the topic ends at {offsets.end - 1}: it was made anew"
    if position < offsets.beginning:
        yield f"lost: the broker deleted offsets {position} to {offsets.beginning - 1} before they were archived"
    if committed is not None and committed > position:
        yield f"offset {committed} is committed, but only {position} is archived"


class _RangeFiles:
    """The files of one range as they are on disk."""

    def __init__(self, folder: Path, partition: int, manifest: Manifest) -> None:
        self._folder, self._partition, self._manifest = folder, partition, manifest
        self._pending = Ranges(folder, partition).pending(manifest)
        self.files = self.rows = 0
        self.faults: list[str] = []
        offsets = [self._offsets(file.name, file.rows) for file in manifest.files]
        together = np.concatenate(offsets) if offsets else np.empty(0, np.int64)
        if len(np.unique(together)) < len(together):
            self.faults.append(f"an offset between {manifest.first} and {manifest.last} is in two rows")

    def _offsets(self, name: str, written: int) -> Any:
        path = self._folder / name
        if not path.exists():
            if name not in self._pending:  # else a worker renames it now, or will at its next start
                self.faults.append(f"missing file: {name}")
            return np.empty(0, np.int64)
        try:
            with pq.ParquetFile(path) as file:
                table = file.read([PARTITION, OFFSET])
            lost = erased_rows(path)
        except pa.ArrowInvalid as error:
            self.faults.append(f"{name} cannot be read: {error}")
            return np.empty(0, np.int64)
        offsets = table.column(OFFSET).to_numpy()
        self.files, self.rows = self.files + 1, self.rows + len(offsets)
        if len(offsets) + lost != written:
            self.faults.append(f"{name} has {len(offsets)} rows and lost {lost} to erasures; {written} were written")
        low, high = self._manifest.first, self._manifest.last
        if len(offsets) and not (low <= offsets.min() and offsets.max() <= high):
            self.faults.append(f"{name} has rows out of its range")
        if (table.column(PARTITION).to_numpy() != self._partition).any():
            self.faults.append(f"{name} has rows of another partition")
        return offsets


def _files(folder: Path, key: Key) -> dict[str, ArchiveFile]:
    found = [file for path in archive_files(folder, key.topic) if (file := parse_file(path))]
    return {file.name: file for file in found if file.partition == key.partition}


def _committed(admin: Any, partitions: Sequence[Key]) -> dict[Key, int]:
    """What the group has committed, for the partitions where it has."""
    found = admin.list_group_offsets({App.ARCHIVE: [TopicPartition(*key) for key in partitions]})
    rows = found.get(App.ARCHIVE, {})
    return {Key(*row): at.offset for row, at in rows.items() if getattr(at, "offset", -1) >= 0}


def _offsets(admin: Any, partitions: Sequence[Key]) -> dict[Key, BrokerOffsets]:
    rows = [TopicPartition(*key) for key in partitions]
    beginnings, ends = (
        admin.list_partition_offsets(dict.fromkeys(rows, spec)) for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST)
    )
    return {Key(*row): BrokerOffsets(beginnings[row].offset, ends[row].offset) for row in rows}


@contextmanager
def _admin(config: Config) -> Iterator[Any]:
    check_credentials(config.kafka)
    try:
        options = kafka_python_options(config.kafka)
        with closing(
            KafkaAdminClient(**options, request_timeout_ms=TIMEOUT_MS, bootstrap_timeout_ms=TIMEOUT_MS)
        ) as admin:
            yield admin
    except (KafkaError, OSError) as error:
        raise failure(config.kafka, error) from error
