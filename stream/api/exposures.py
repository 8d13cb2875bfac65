"""The log of what was answered: noted in memory while the answer leaves, sent to Kafka behind its back.

A request never waits for the log. The queue is bounded: while Kafka is away for long the newest rows are dropped, of
both arms alike, counted, and told by /readyz; rows that a shutdown finds in the queue are sent before the process ends.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from logging import getLogger

from schemas.codec import EXPOSURES, Codec
from schemas.errors import PermanentError, RetryableError, Unavailable
from schemas.exposure import Exposure
from schemas.names import Topic
from stream import monitoring
from stream.producer import Outgoing, Producer
from stream.retrying import until_done

_log = getLogger(__name__)

STAGE = "exposures"
QUEUE_ROWS = 50_000  # about 20 MB
BATCH_ROWS = 500
DRAIN_SECONDS = 5.0
TOLD_SECONDS = 60.0  # for so long after a loss /readyz tells of it


class ExposureLog:
    """`monotonic` is in seconds."""

    def __init__(
        self,
        producer: Producer,
        monotonic: Callable[[], float],
        *,
        codec: Codec[Exposure] = EXPOSURES,
        limit: int = QUEUE_ROWS,
    ) -> None:
        self._producer, self._monotonic, self._codec, self._limit = producer, monotonic, codec, limit
        self._queue: deque[Exposure] = deque()
        self._some = asyncio.Event()
        self._lost_at: float | None = None
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._queue)

    def note(self, rows: Sequence[Exposure]) -> None:
        """At once; an answer is kept whole or dropped whole."""
        if len(self._queue) + len(rows) > self._limit:
            self._lose(len(rows))
            return
        self._queue.extend(rows)
        self._some.set()
        monitoring.EXPOSURES_WAITING.set(len(self._queue))

    async def run(self) -> None:
        """Until cancelled: send what is noted. Kafka may be away; no row is sent out of order."""
        while True:
            await self._some.wait()
            await until_done(self._send_some, stage=STAGE, max_wait_seconds=5.0)

    async def drain(self, seconds: float = DRAIN_SECONDS) -> None:
        """Send all that is left, for at most so long; what is then still there is lost, and counted."""
        try:
            async with asyncio.timeout(seconds):
                while self._queue:
                    await self._send_some()
        except (TimeoutError, RetryableError) as error:
            _log.warning("%d exposures could not be sent before the end: %r", len(self._queue), error)
            self._lose(len(self._queue))
            self._queue.clear()

    async def check(self) -> None:
        """Raises Unavailable while rows are being lost, or are about to be."""
        if self._lost_at is not None and self._monotonic() - self._lost_at < TOLD_SECONDS:
            raise Unavailable(f"{self.dropped} exposures were dropped, the last one less than a minute ago: {_WHY}")
        if len(self._queue) > self._limit // 2:
            raise Unavailable(f"{len(self._queue)} of at most {self._limit} exposures wait for Kafka: {_WHY}")

    async def _send_some(self) -> None:
        rows = list(islice(self._queue, BATCH_ROWS))
        try:
            await self._producer.send(
                [Outgoing(Topic.EXPOSURES, row.user_id.encode(), self._codec.encode(row)) for row in rows]
            )
        except PermanentError as error:
            _log.error("%d exposures cannot be sent: %s", len(rows), error)
            self._lose(len(rows))
        else:
            monitoring.EXPOSURES_SENT.inc(len(rows))
        for _ in rows:
            self._queue.popleft()
        monitoring.EXPOSURES_WAITING.set(len(self._queue))
        if not self._queue:
            self._some.clear()

    def _lose(self, rows: int) -> None:
        self.dropped += rows
        self._lost_at = self._monotonic()
        monitoring.EXPOSURES_DROPPED.inc(rows)


_WHY = "see the part kafka; an analysis of these minutes is not complete"
