"""What every route shares: bodies with a limit, msgspec answers, problems, the timer."""

import time
from collections.abc import Awaitable, Callable
from logging import getLogger
from typing import Any

import msgspec
from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException

from schemas.errors import Conflict, KeenstreamError, PermanentError, RetryableError
from stream import monitoring
from stream.api.messages import Problem

MAX_BODY_BYTES = 1_048_576
RETRY_SECONDS = 2

_log = getLogger(__name__)
_encode = msgspec.json.Encoder().encode
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]


def answer(message: msgspec.Struct, status: int = 200) -> Response:
    headers = {"Retry-After": str(RETRY_SECONDS)} if status in (503, 504) else None
    return Response(_encode(message), status, headers, media_type="application/json")


async def read_body(request: Request) -> bytes:
    """The whole body, never more of it in memory than is allowed."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES} bytes: send fewer events at once")
    return bytes(body)


async def on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    response = answer(Problem(str(error.detail)), error.status_code)
    response.headers.update(error.headers or {})
    return response


async def on_wrong_parameter(request: Request, error: Exception) -> Response:
    """Which parameter, and what is allowed."""
    assert isinstance(error, RequestValidationError)
    told = "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
    return answer(Problem(told), 422)


async def on_keenstream_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, KeenstreamError)
    if isinstance(error, RetryableError):
        return answer(Problem(str(error)), 503)
    if isinstance(error, Conflict):
        return answer(Problem(str(error)), 409)
    return answer(Problem(str(error)), 422 if isinstance(error, PermanentError) else 500)


class Timer:
    """ASGI middleware: how long each route took, by status, and whose key it was; `log` also writes a line of it."""

    def __init__(self, app: AsgiApp, log: bool = False) -> None:
        self._app, self._log = app, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, started = 500, time.perf_counter()

        async def noting(message: dict[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "none")  # never the path itself: it holds a user id
            took = time.perf_counter() - started
            key = getattr(scope.get("state", {}).get("key"), "name", "-")
            monitoring.API_SECONDS.labels(route, str(status)).observe(took)
            monitoring.API_REQUESTS.labels(key, str(status)).inc()
            if self._log:
                _log.info("%s %s %d %.1f ms, key %s", scope["method"], route, status, took * 1000, key)
