"""The shuffle of the job by files: the rows of a part, split by reader, in one Arrow file with a batch for each bucket.

A runner on one machine keeps what it groups in memory, and a group may be as large as the log. Files keep memory flat,
are written whole or not at all, and a bucket reads its own batches only. The folder must be one that all workers see.
"""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc

_OPTIONS = ipc.IpcWriteOptions(compression="lz4")


def bucket_rows(rows: pa.Table, buckets: int, session: duckdb.DuckDBPyConnection) -> list[pa.Table]:
    """The rows of each bucket, in their order; a reader is in one bucket, by a hash of `user_id`."""
    session.register("hashed", rows.select(["user_id"]))
    at = session.sql(f"SELECT (hash(user_id) % {buckets})::USMALLINT AS bucket FROM hashed").to_arrow_table()
    session.unregister("hashed")
    bucket = at["bucket"].to_numpy()
    order = np.argsort(bucket, kind="stable")
    ends = np.searchsorted(bucket[order], np.arange(buckets + 1))
    grouped = rows.take(pa.array(order))
    return [grouped.slice(low, high - low) for low, high in itertools.pairwise(ends)]


def write_split(path: Path, tables: Sequence[pa.Table]) -> None:
    """Batch number b of the file is the rows of bucket b."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with pa.OSFile(str(scratch), "wb") as sink, ipc.new_file(sink, tables[0].schema, options=_OPTIONS) as writer:
        for table in tables:
            whole = table.combine_chunks()
            batches = whole.to_batches()
            writer.write_batch(batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema))
    scratch.replace(path)


def read_bucket(paths: Sequence[str], bucket: int, schema: pa.Schema) -> pa.Table:
    """The rows of one bucket in all files."""
    batches = []
    for path in paths:
        with pa.memory_map(path) as source, ipc.open_file(source) as reader:
            batches.append(reader.get_batch(bucket))
    return pa.Table.from_batches(batches, schema=schema)
