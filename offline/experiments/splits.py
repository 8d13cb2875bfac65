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
from numpy.typing import NDArray

from offline.experiments.encoding import hashed, one_array

_OPTIONS = ipc.IpcWriteOptions(compression="lz4")


def bucket_rows(rows: pa.Table, buckets: int, session: duckdb.DuckDBPyConnection) -> list[pa.RecordBatch]:
    """The rows of each bucket by reader; a reader is in one bucket, by a hash of `user_id`.

    `user_id`, a dictionary, comes as runs: a dictionary of its own in every bucket.
    """
    users = one_array(rows["user_id"])
    bucket = (hashed(pa.chunked_array([users.dictionary]), session).to_numpy() % np.uint64(buckets)).astype(np.int64)
    codes = users.indices.to_numpy()
    order = np.argsort(bucket[codes] * len(bucket) + codes, kind="stable")
    grouped, codes = one_batch(rows.drop_columns("user_id")).take(pa.array(order)), codes[order]
    ends = np.searchsorted(bucket[codes], np.arange(buckets + 1))
    return [
        _with_runs(grouped.slice(low, high - low), codes[low:high], users.dictionary)
        for low, high in itertools.pairwise(ends.tolist())
    ]


def write_split(path: Path, batches: Sequence[pa.RecordBatch]) -> None:
    """Batch number b of the file is the rows of bucket b."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with pa.OSFile(str(scratch), "wb") as sink, ipc.new_file(sink, batches[0].schema, options=_OPTIONS) as writer:
        for batch in batches:
            writer.write_batch(batch)
    scratch.replace(path)


def read_bucket(paths: Sequence[str], bucket: int, schema: pa.Schema) -> pa.Table:
    """The rows of one bucket in all files."""
    batches = []
    for path in paths:
        with pa.memory_map(path) as source, ipc.open_file(source) as reader:
            batches.append(_without_runs(reader.get_batch(bucket), schema))
    return pa.Table.from_batches(batches, schema=schema)


def one_batch(rows: pa.Table) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([one_array(column) for column in rows.columns], names=rows.column_names)


def _with_runs(rows: pa.RecordBatch, codes: NDArray[np.int32], users: pa.Array) -> pa.RecordBatch:
    ends = np.append(np.flatnonzero(np.diff(codes)), len(codes) - 1)[: len(codes)] + 1
    runs = pa.RunEndEncodedArray.from_arrays(pa.array(ends, pa.int32()), users.take(pa.array(codes[ends - 1])))
    return pa.RecordBatch.from_arrays([runs, *rows.columns], names=["user_id", *rows.schema.names])


def _without_runs(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    runs = batch.column(0)
    lengths = np.diff(runs.run_ends.to_numpy(), prepend=0)
    codes = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    users = pa.DictionaryArray.from_arrays(pa.array(codes), runs.values)
    return pa.RecordBatch.from_arrays([users, *batch.columns[1:]], schema=schema)
