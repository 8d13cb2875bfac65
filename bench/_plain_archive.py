"""What a plain script would do: poll, `json.loads` each record, `Table.from_pylist`, one file per day; and less still.

    python -m bench._plain_archive BOOTSTRAP FOLDER PARTITIONS RECORDS archive|drop

Prints the seconds from the first record to the last file. `drop` only reads, which is the limit of the client.
"""

import json
import sys
import time
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from kafka import KafkaConsumer, TopicPartition

from schemas.names import Topic

ROLL_RECORDS = 100_000


def main(bootstrap: str, folder: Path, partitions: int, records: int, mode: str) -> float:
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_poll_records=10_000,
        max_partition_fetch_bytes=4 * 1024 * 1024,
        metrics_enabled=False,
    )
    consumer.assign([TopicPartition(Topic.USER_EVENTS, number) for number in range(partitions)])
    taken, started, rows = 0, 0.0, list[dict[str, Any]]()
    while taken < records:
        for batch in consumer.poll(timeout_ms=1_000).values():
            started = started or time.perf_counter()
            taken += len(batch)
            if mode == "archive":
                rows += [_row(record) for record in batch]
        if len(rows) >= ROLL_RECORDS:
            _write(folder, rows, taken)
            rows = []
    _write(folder, rows, taken)
    consumer.close()
    return time.perf_counter() - started


def _row(record: Any) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(record.value)
    row["occurred_at"] = datetime.fromtimestamp(row["occurred_at"] / 1000, UTC)
    return {**row, "partition": record.partition, "offset": record.offset, "timestamp": record.timestamp}


def _write(folder: Path, rows: list[dict[str, Any]], number: int) -> None:
    days: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        days[row["occurred_at"].strftime("%Y-%m-%d")].append(row)
    for day, some in days.items():
        path = folder / f"date={day}" / f"{number}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(some), path, compression="zstd")


if __name__ == "__main__":
    print(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]))  # noqa: T201
