"""Sending to Kafka: `send` returns when the broker has every message, so an input may be acknowledged after it."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, Self

import aiokafka
import msgspec
from aiokafka.errors import KafkaError

from schemas.errors import InvalidRecord, Unavailable
from stream.kafka_access import HOW_TO_START, Broker, aiokafka_options, ask_why, settings_of


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

    def __init__(self, broker: Broker, *, timeout_seconds: float = 30.0) -> None:
        self._broker = broker
        self._timeout_seconds = timeout_seconds
        self._client: Any = None
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        try:
            await self._started()
        except (KafkaError, OSError) as error:
            raise Unavailable(await self._told(error)) from error
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
            raise Unavailable(await self._told(error)) from error

    async def _started(self) -> Any:
        async with self._starting:
            if self._client is None:
                client = aiokafka.AIOKafkaProducer(
                    **aiokafka_options(self._broker),
                    enable_idempotence=True,
                    linger_ms=2,
                    max_request_size=2 * 1024 * 1024,
                    request_timeout_ms=int(self._timeout_seconds * 1000),
                )
                await _start(client)
                self._client = client
            return self._client

    async def _told(self, error: Exception) -> str:
        # not an end: a password may be changed at the broker while a worker runs, and nothing is lost by waiting
        return await ask_why(self._broker) or (
            f"Kafka at {settings_of(self._broker).bootstrap} does not take messages ({type(error).__name__}): "
            f"check it, or {HOW_TO_START}"
        )

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
