"""Taking a reader's rows out of the archive: files are found by their bloom filters and rewritten one by one.

A rewritten file keeps its name and range; its metadata says how many rows it lost. Processes that rewrite exclude each
other by a lock, or one would bring back what another removed; the worker only adds files and needs no lock for it.
"""

import fcntl
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.archive import ARCHIVED, ARRIVED, READER, archive_files
from stream.archive.ranges import sync_folder, write_parquet

ERASING = "_erasing"
ERASED_ROWS = b"keenstream.erased_rows"  # in a file's metadata
Erasures = Mapping[str, int]  # user_id to the UTC ms up to which (inclusive) nothing is kept


class ErasedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was rewritten."""

    path: str  # below the archive's folder
    topic: str
    rows: int  # removed
    kept: int
    seconds: float


def erase_from_archive(
    folder: Path, user_id: str, before_ms: int, on_file: Callable[[ErasedFile], None] | None = None
) -> list[ErasedFile]:
    """Remove the rows of a reader up to `before_ms` from all files; what was rewritten. Repeatable.

    Send the `Erasure` to its topic first: the worker looks there again after each file, so that none slips through.
    """
    return erase_readers(folder, {user_id: before_ms}, on_file)


def erase_readers(
    folder: Path, erasures: Erasures, on_file: Callable[[ErasedFile], None] | None = None
) -> list[ErasedFile]:
    """`erase_from_archive` for several readers, each file rewritten once."""
    if not folder.exists():
        return []
    erased = []
    with _rewriting(folder):
        for topic in _topics_of_readers():
            for path in _files_with(archive_files(folder, topic), list(erasures)):
                done = _erase_file(folder, topic, path, erasures)
                if done is not None:
                    erased.append(done)
                    if on_file is not None:
                        on_file(done)
    return erased


def erase_rows(folder: Path, topic: str, paths: Sequence[Path], erasures: Erasures) -> list[ErasedFile]:
    """Remove the rows of erased readers from some files of `topic`."""
    if not ARCHIVED[topic].of_readers or not erasures or not paths:
        return []
    with _rewriting(folder):
        return [done for path in paths if path.exists() and (done := _erase_file(folder, topic, path, erasures))]


def find_in_archive(folder: Path, user_id: str, before_ms: int | None = None) -> dict[str, int]:
    """Rows of a reader by topic, all or those up to `before_ms`. Reads every file and trusts no filter of theirs."""
    return {topic: sum(_count(path, topic, user_id, before_ms) for path in archive_files(folder, topic))
            for topic in _topics_of_readers()}  # fmt: skip


def without_erased(table: pa.Table, topic: str, erasures: Erasures) -> pa.Table:
    """`table` without the rows that the erasures forbid; the same object when there are none."""
    archived = ARCHIVED[topic]
    if not archived.of_readers or not erasures or not table.num_rows:
        return table
    hit = pc.is_in(table.column(READER), value_set=pa.array(erasures, pa.string()))
    places = np.flatnonzero(hit.to_numpy())
    if not len(places):
        return table
    found = table.select([READER, archived.time_field, ARRIVED]).take(pa.array(places))
    readers, times = found.column(0).to_pylist(), _times(found, archived.time_field)
    keep = np.ones(table.num_rows, dtype=bool)
    keep[[place for place, reader, at in zip(places, readers, times, strict=True) if at <= erasures[reader]]] = False
    return table if keep.all() else table.filter(pa.array(keep))


def erased_rows(path: Path) -> int:
    """How many rows a file has lost to erasures."""
    return int((pq.read_metadata(path).metadata or {}).get(ERASED_ROWS, b"0"))


def _topics_of_readers() -> list[str]:
    return [topic for topic, archived in ARCHIVED.items() if archived.of_readers]


def _files_with(paths: Sequence[Path], readers: list[str]) -> list[Path]:
    """Those of `paths` with rows of the readers; DuckDB skips a file whose bloom filter has none of them."""
    if not paths:
        return []
    # DuckDB asks the bloom filters for a constant only
    wanted = "= $readers[1]" if len(readers) == 1 else "IN (SELECT unnest($readers))"
    query = f"SELECT DISTINCT filename FROM read_parquet($paths, filename = true) WHERE {READER} {wanted}"
    with duckdb.connect() as connection:
        rows = connection.execute(query, {"paths": [str(path) for path in paths], "readers": readers}).fetchall()
    return sorted(Path(name) for (name,) in rows)


def _erase_file(folder: Path, topic: str, path: Path, erasures: Erasures) -> ErasedFile | None:
    started = time.monotonic()
    with pq.ParquetFile(path) as file:
        table = file.read()
    kept = without_erased(table, topic, erasures)
    removed = table.num_rows - kept.num_rows
    if not removed:
        return None
    metadata = {**(table.schema.metadata or {}), ERASED_ROWS: str(erased_rows(path) + removed).encode()}
    scratch = folder / ERASING / f"{uuid.uuid4().hex}.tmp"
    write_parquet(kept.replace_schema_metadata(metadata), scratch)
    scratch.rename(path)
    sync_folder(path.parent)
    seconds = time.monotonic() - started
    return ErasedFile(
        path=str(path.relative_to(folder)), topic=topic, rows=removed, kept=kept.num_rows, seconds=seconds
    )


def _count(path: Path, topic: str, user_id: str, before_ms: int | None) -> int:
    time_field = ARCHIVED[topic].time_field
    with pq.ParquetFile(path, read_dictionary=[READER]) as file:
        table = file.read([READER, time_field, ARRIVED])
    found = table.filter(pc.equal(table.column(READER), user_id))
    return found.num_rows if before_ms is None else int(np.sum(_times(found, time_field) <= before_ms))


def _times(table: pa.Table, time_field: str) -> npt.NDArray[np.int64]:
    """UTC ms by which rows are erased: their own time, or their arrival where that was earlier, as what a wrong clock
    dates to 2099 was there before the wish all the same."""
    happened, arrived = (table.column(name).cast(pa.int64()).to_numpy() for name in (time_field, ARRIVED))
    return np.minimum(happened, np.where(arrived > 0, arrived, happened))  # 0 or less: the broker did not say


@contextmanager
def _rewriting(folder: Path) -> Iterator[None]:
    """One process at a time; what an earlier one left half-written is deleted."""
    (folder / ERASING).mkdir(parents=True, exist_ok=True)
    with (folder / ERASING / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the process ends, however it ends
        for left in (folder / ERASING).glob("*.tmp"):
            left.unlink()
        yield
