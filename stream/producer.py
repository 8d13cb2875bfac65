"""Sending to Kafka: `send` returns when the broker has every message, so an input may be acknowledged after it."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, Self

import aiokafka
import msgspec
from aiokafka.errors import KafkaError

from schemas.errors import InvalidRecord, Unavailable


class Outgoing(msgspec.Struct, frozen=True):
    """One message to send. The key decides the partition (murmur2, as every Kafka client does)."""

    topic: str
    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Producer(Protocol):
    """Sends messages of one key in order.

    Returning means that all are acknowledged by all in-sync replicas. Raises Unavailable when that did not happen in
    time: some may have been stored, so sending the same again must be harmless (design rule 3).
    """

    async def send(self, messages: Sequence[Outgoing]) -> None: ...


class MemoryProducer(Producer):
    """The twin: keeps what was sent; `failures` makes the next sends raise."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.failures = 0

    async def send(self, messages: Sequence[Outgoing]) -> None:
        if self.failures:
            self.failures -= 1
            raise Unavailable("Kafka does not answer")
        self.sent += messages


class KafkaProducer(Producer):
    """aiokafka's idempotent producer. A client that failed is replaced: it can stick after an outage
    (aio-libs/aiokafka#1017)."""

    def __init__(self, bootstrap: str, *, timeout_seconds: float = 30.0) -> None:
        self._bootstrap = bootstrap
        self._timeout_seconds = timeout_seconds
        self._client: Any = None
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self._started()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.stop()

    async def send(self, messages: Sequence[Outgoing]) -> None:
        if not messages:
            return
        try:
            async with asyncio.timeout(self._timeout_seconds):
                client = await self._started()
                await _delivered(
                    [await client.send(m.topic, m.value, m.key, headers=list(m.headers)) for m in messages]
                )
        except aiokafka.errors.MessageSizeTooLargeError as error:
            raise InvalidRecord(f"the record is larger than the broker takes: {error}") from error
        except (KafkaError, TimeoutError, OSError) as error:
            await self._discard()
            raise Unavailable(
                f"Kafka at {self._bootstrap} does not take messages ({type(error).__name__}); "
                "check it, or start a local one with: keenstream stack up"
            ) from error

    async def _started(self) -> Any:
        async with self._starting:
            if self._client is None:
                client = aiokafka.AIOKafkaProducer(
                    bootstrap_servers=self._bootstrap.split(","),
                    enable_idempotence=True,
                    linger_ms=2,
                    max_request_size=2 * 1024 * 1024,
                    request_timeout_ms=int(self._timeout_seconds * 1000),
                )
                await _start(client)
                self._client = client
            return self._client

    async def _discard(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            closing = asyncio.ensure_future(client.stop())  # may wait long for a broker that is away
            closing.add_done_callback(lambda done: done.cancelled() or done.exception())


async def _start(client: Any) -> None:
    try:
        await client.start()
    except BaseException:
        await client.stop()  # or its tasks and sockets stay behind
        raise


async def _delivered(futures: Iterable[asyncio.Future[Any]]) -> None:
    results = await asyncio.gather(*futures, return_exceptions=True)  # let all finish before one is raised
    for result in results:
        if isinstance(result, BaseException):
            raise result
