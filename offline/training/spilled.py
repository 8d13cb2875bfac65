"""States of readers between the two halves of the job: an Arrow file for each part, a batch for each bucket."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc as ipc

SCHEMA = pa.schema([pa.field("state", pa.binary())])
_OPTIONS = ipc.IpcWriteOptions(compression="lz4")


def write_spilled(path: Path, buckets: Sequence[Sequence[bytes]]) -> None:
    """Batch number b of the file is bucket b; whole or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with pa.OSFile(str(scratch), "wb") as sink, ipc.new_file(sink, SCHEMA, options=_OPTIONS) as writer:
        for states in buckets:
            writer.write_batch(pa.record_batch([pa.array(states, pa.binary())], schema=SCHEMA))
    scratch.replace(path)


def read_spilled(paths: Sequence[str], bucket: int) -> Iterator[bytes]:
    """The states of one bucket in all files; only its batches are read from the disk."""
    for path in paths:
        with pa.memory_map(path) as source, ipc.open_file(source) as reader:
            yield from reader.get_batch(bucket).column(0).to_pylist()
