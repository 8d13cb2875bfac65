"""Who was erased, as the compacted topic `erasures` says, read up to its end whenever it is asked."""

from collections.abc import Sequence
from logging import getLogger
from pathlib import Path
from typing import Any

import msgspec
from kafka import TopicPartition

from schemas.codec import ERASURES, Codec
from schemas.erasure import Erasure
from schemas.errors import InvalidRecord, RetryableError, Unavailable
from schemas.names import Topic

_log = getLogger(__name__)
POLL_MS = 1_000
SILENT_POLLS = 30  # without an answer, before the broker counts as away


class ErasedReaders:
    """All erasures, and which of them the files may not have been searched for yet.

    `before` is what is known: user_id to the UTC ms up to which nothing is kept. `mark` is a file with the offsets up
    to which all files were searched, for this worker's next start; a lower one than the truth only repeats work.
    """

    def __init__(self, consumer: Any, partitions: int, mark: Path, codec: Codec[Erasure] = ERASURES) -> None:
        """`consumer`: a kafka-python consumer without a group, for this topic alone."""
        self._consumer, self._codec, self._mark = consumer, codec, mark
        self._partitions = [TopicPartition(Topic.ERASURES, number) for number in range(partitions)]
        self._searched = msgspec.json.decode(mark.read_bytes(), type=dict[int, int]) if mark.exists() else {}
        self._new: dict[str, int] = {}
        self.before: dict[str, int] = {}
        consumer.assign(self._partitions)
        consumer.seek_to_beginning(*self._partitions)

    def catch_up(self) -> dict[str, int]:
        """Read to the present end; what no file was searched for yet. Raises Unavailable without a broker."""
        ends = self._consumer.end_offsets(self._partitions)
        if any(self._searched.get(row.partition, 0) > end for row, end in ends.items()):
            self._searched = {}  # the topic was made anew
        silent = 0
        while any(self._consumer.position(partition) < end for partition, end in ends.items()):
            polled = self._consumer.poll(timeout_ms=POLL_MS)
            silent = 0 if polled else silent + 1
            if silent > SILENT_POLLS:
                raise Unavailable(f"the broker does not give the records of {Topic.ERASURES}: see its log")
            self._note_all([row for rows in polled.values() for row in rows])
        return dict(self._new)

    def applied(self) -> None:
        """All files have been searched for what `catch_up` returned."""
        self._new.clear()
        self._searched = {row.partition: self._consumer.position(row) for row in self._partitions}
        scratch = self._mark.with_suffix(".tmp")
        scratch.write_bytes(msgspec.json.encode(self._searched))
        scratch.rename(self._mark)

    def _note_all(self, records: Sequence[Any]) -> None:
        try:
            for record in records:
                if record.value is not None:
                    self._note(record)
        except RetryableError:  # of the codec: all are read again, which changes nothing
            self._consumer.seek_to_beginning(*self._partitions)
            raise

    def _note(self, record: Any) -> None:
        try:
            erasure = self._codec.decode(record.value)
        except InvalidRecord:
            _log.warning("a record of %s does not decode and is passed over", Topic.ERASURES)
            return
        if erasure.erased_before <= self.before.get(erasure.user_id, -1):
            return
        self.before[erasure.user_id] = erasure.erased_before
        if record.offset >= self._searched.get(record.partition, 0):
            self._new[erasure.user_id] = erasure.erased_before
