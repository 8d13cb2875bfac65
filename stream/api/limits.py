"""What one caller may ask of the API: requests a second, time for the answer to begin, time for the headers.

The body's size is bounded by `stream/api/http.py`, the headers' size (64 KiB) and the connections by uvicorn.
"""

import asyncio
import math
import time
from asyncio import TimerHandle, Transport
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

import h11
import msgspec
from uvicorn.protocols.http.h11_impl import H11Protocol

from stream import monitoring
from stream.api.access import HEADER, KeyRing
from stream.api.http import AsgiApp, Receive, Scope, Send, answer
from stream.api.messages import Problem

CALLERS = 10_000  # remembered; the one that was quiet for longest is forgotten first
FREE_PATHS = frozenset({"/healthz"})  # a flood must not make a process manager end the process


class _Bucket(msgspec.Struct):
    tokens: float
    filled_at: float


class Rates:
    """A token bucket for each caller. A library was looked at: pyrate-limiter keeps a time for each request and sweeps
    them by a thread; two numbers for each caller are enough here."""

    def __init__(
        self, per_second: float, burst: int, *, callers: int = CALLERS, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second, self._burst, self._callers, self._monotonic = per_second, max(1, burst), callers, monotonic
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, caller: str) -> float:
        """0 when the request may pass; otherwise the seconds after which one may."""
        if self._per_second <= 0:
            return 0.0
        now = self._monotonic()
        bucket = self._buckets.setdefault(caller, _Bucket(float(self._burst), now))
        self._buckets.move_to_end(caller)
        if len(self._buckets) > self._callers:
            self._buckets.popitem(last=False)
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.filled_at) * self._per_second)
        bucket.filled_at = now
        if bucket.tokens < 1:
            return (1 - bucket.tokens) / self._per_second
        bucket.tokens -= 1
        return 0.0


class Gate:
    """ASGI middleware: whose key it is (`request.state.key`), and whether they have asked too often."""

    def __init__(self, app: AsgiApp, keys: KeyRing | None, rates: Rates) -> None:
        self._app, self._keys, self._rates = app, keys, rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in FREE_PATHS:
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == HEADER.encode()), None)
        key = self._keys.find(given.decode("latin-1")) if self._keys and given else None
        scope.setdefault("state", {})["key"] = key
        address = (scope.get("client") or ("unknown",))[0]
        wait = self._rates.take(f"key {key.name}" if key else f"address {address}")
        if not wait:
            await self._app(scope, receive, send)
            return
        monitoring.API_REFUSED.labels("rate").inc()
        whole = math.ceil(wait)
        refusal = answer(Problem(f"too many requests: wait {whole} s, or raise api.requests_per_second"), 429)
        refusal.headers["Retry-After"] = str(whole)
        await refusal(scope, receive, send)  # type: ignore[arg-type]  # Starlette's own mapping types


class Deadline:
    """ASGI middleware: an answer must begin in time; what has begun, such as a stream of events, is never cut."""

    def __init__(self, app: AsgiApp, seconds: float) -> None:
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        receiving = False

        async def noting() -> dict[str, Any]:
            nonlocal receiving
            receiving = True
            message = await receive()
            receiving = False
            return message

        try:
            async with asyncio.timeout(self._seconds) as timer:

                async def sending(message: dict[str, Any]) -> None:
                    timer.reschedule(None)
                    await send(message)

                await self._app(scope, noting, sending)
        except TimeoutError:
            if not timer.expired():
                raise
            await self._refuse(receiving)(scope, receive, send)

    def _refuse(self, receiving: bool) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        monitoring.API_REFUSED.labels("slow body" if receiving else "deadline").inc()
        if receiving:
            return answer(Problem(f"the body did not come in {self._seconds:g} s: send less at once"), 408)  # type: ignore[return-value]
        told = f"no answer in {self._seconds:g} s: a part is slow, see GET /readyz; try again"
        return answer(Problem(told), 504)  # type: ignore[return-value]


def bounded_protocol(header_seconds: float) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1, which itself would wait for ever for the headers of a connection that has been opened."""

    class Bounded(H11Protocol):
        _due: TimerHandle | None = None

        def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
            super().connection_made(transport)
            self._await_headers()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._forget_headers()
            elif self._due is None and self.timeout_keep_alive_task is None:
                self._await_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget_headers()
            super().connection_lost(exc)

        def _await_headers(self) -> None:
            self._due = self.loop.call_later(header_seconds, self.transport.close)

        def _forget_headers(self) -> None:
            if self._due is not None:
                self._due.cancel()
                self._due = None

    return Bounded
