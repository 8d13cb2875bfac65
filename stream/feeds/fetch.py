"""Fetching documents over HTTP as a polite guest, within limits of time, size, redirects and attempts."""

import asyncio
from collections.abc import Awaitable, Callable
from logging import getLogger
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx
import msgspec
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from schemas.errors import Overloaded, RetryableError, Unavailable, UsageError
from stream.feeds.addresses import is_web
from stream.feeds.decoding import ACCEPTED, BodyReader
from stream.feeds.politeness import Robots, Turns, retry_after_seconds

_log = getLogger(__name__)
_PERMANENT = (httpx.codes.MOVED_PERMANENTLY, httpx.codes.PERMANENT_REDIRECT)
_ACCEPT = "application/rss+xml, application/atom+xml, application/xml;q=0.9, text/xml;q=0.8, */*;q=0.5"
_ROBOTS_BYTES = 512 * 1024


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    seconds: float = 30.0  # of one request, from the connection to the last byte
    connect_seconds: float = 10.0
    max_bytes: int = 32 * 1024 * 1024  # unpacked
    redirects: int = 5
    attempts: int = 4
    most_wait_seconds: float = 60.0  # a longer Retry-After is left for another run
    pause_seconds: float = 1.0  # between two requests to one host
    agent: str = "keenstream/0.1 (news indexing)"
    robots: bool = True  # keep to robots.txt


class Validators(msgspec.Struct, frozen=True):
    """What the server gave to ask with next time."""

    etag: str = ""
    last_modified: str = ""


NO_VALIDATORS = Validators()


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """An answer; `body` is None when nothing changed since the validators (304)."""

    address: str  # after redirects
    body: bytes | None
    content_type: str = ""
    validators: Validators = NO_VALIDATORS
    moved_to: str = ""  # for good: every redirect on the way was permanent


class _Asked(Overloaded):
    """The server says when to come back."""

    def __init__(self, message: str, seconds: float | None) -> None:
        super().__init__(message)
        self.seconds = seconds


class _NotNow(Unavailable):
    """The server asks to come back later than this run can wait."""


class _Redirect(msgspec.Struct, frozen=True):
    address: str
    permanent: bool


class Fetcher:
    """Use it in one event loop, as an async context manager."""

    def __init__(self, limits: Limits, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._limits = limits
        self._sleep = sleep
        self._turns = Turns(limits.pause_seconds)
        self._robots: dict[str, Robots] = {}
        headers = {"user-agent": limits.agent, "accept": _ACCEPT, "accept-encoding": ACCEPTED}
        timeout = httpx.Timeout(limits.seconds, connect=limits.connect_seconds)
        self._client = httpx.AsyncClient(headers=headers, timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def get(self, address: str, known: Validators = NO_VALIDATORS) -> Fetched:
        """The document, or that it did not change since `known`.

        Raises UsageError for an address that will never work (wrong scheme, 404, refused by robots.txt, redirects
        without end, too large) and Unavailable for one that may work later, after all attempts.
        """
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(_may_work_now),
            stop=stop_after_attempt(self._limits.attempts),
            wait=self._wait,
            before_sleep=lambda call: _note(address, call),
            sleep=self._sleep,
            reraise=True,
        ):
            with attempt:
                return await self._follow(address, known)
        raise AssertionError  # reraise leaves above

    def _wait(self, call: RetryCallState) -> float:
        error = call.outcome.exception() if call.outcome else None
        if isinstance(error, _Asked) and error.seconds is not None:
            return error.seconds
        return wait_random_exponential(multiplier=0.5, max=self._limits.most_wait_seconds)(call)

    async def _follow(self, address: str, known: Validators) -> Fetched:
        here, permanent = address, True
        for _ in range(self._limits.redirects + 1):
            answer = await self._ask(here, known)
            if isinstance(answer, Fetched):
                return msgspec.structs.replace(answer, moved_to=here if permanent and here != address else "")
            here, permanent = answer.address, permanent and answer.permanent
        raise UsageError(f"{address} redirects more than {self._limits.redirects} times")

    async def _ask(self, address: str, known: Validators) -> Fetched | _Redirect:
        if not is_web(address):
            raise UsageError(f"{address} is not an http or https address")
        host = urlsplit(address).netloc
        async with self._turns.lock(host):
            if self._limits.robots and not (await self._rules(address)).allows(address):
                raise UsageError(
                    f"{address} is closed to {self._limits.agent} by robots.txt; --ignore-robots overrides"
                )
            return await self._request(address, known, self._limits.max_bytes)

    async def _rules(self, address: str) -> Robots:
        parts = urlsplit(address)
        if parts.netloc not in self._robots:
            text = await self._robots_text(f"{parts.scheme}://{parts.netloc}/robots.txt")
            self._robots[parts.netloc] = rules = Robots(text, self._limits.agent)
            self._turns.slow_down(parts.netloc, rules.pause_seconds)
        return self._robots[parts.netloc]

    async def _robots_text(self, address: str) -> str:
        """Empty, which allows everything, when the host has none (RFC 9309)."""
        for _ in range(self._limits.redirects + 1):
            try:
                answer = await self._request(address, NO_VALIDATORS, _ROBOTS_BYTES)
            except UsageError:
                return ""
            if isinstance(answer, Fetched):
                return (answer.body or b"").decode("utf-8", "replace")
            address = answer.address
        return ""

    async def _request(self, address: str, known: Validators, most_bytes: int) -> Fetched | _Redirect:
        host = urlsplit(address).netloc
        await self._turns.wait(host)
        asked = {"if-none-match": known.etag, "if-modified-since": known.last_modified}
        headers = {name: value for name, value in asked.items() if value}
        try:
            async with (
                asyncio.timeout(self._limits.seconds),
                self._client.stream("GET", address, headers=headers) as response,
            ):
                return await self._read(address, response, known, most_bytes)
        except TimeoutError as error:
            told = f"{address} did not answer whole within {self._limits.seconds:g} s"
            raise Unavailable(f"{told}: try again later, or give it more with --timeout") from error
        except httpx.InvalidURL as error:
            raise UsageError(f"{address} is no address: {error}") from error
        except httpx.TransportError as error:
            told = f"{address} cannot be reached ({error or type(error).__name__})"
            raise Unavailable(f"{told}: check the address, or try again later") from error
        finally:
            self._turns.done(host)

    async def _read(
        self, address: str, response: httpx.Response, known: Validators, most_bytes: int
    ) -> Fetched | _Redirect:
        code = response.status_code
        if code == httpx.codes.NOT_MODIFIED:
            return Fetched(address=address, body=None, validators=known)
        if response.has_redirect_location:
            target = str(response.url.join(response.headers["location"]))
            return _Redirect(target, code in _PERMANENT)
        if code != httpx.codes.OK:
            raise self._refusal(address, response)
        body = BodyReader(address, response.headers.get("content-encoding", ""), most_bytes)
        async for chunk in response.aiter_raw():
            body.add(chunk)
        return Fetched(
            address=address,
            body=body.whole(),
            content_type=response.headers.get("content-type", ""),
            validators=Validators(response.headers.get("etag", ""), response.headers.get("last-modified", "")),
        )

    def _refusal(self, address: str, response: httpx.Response) -> Exception:
        code = response.status_code
        if code not in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.REQUEST_TIMEOUT) and not response.is_server_error:
            return UsageError(f"{address} answers {code} {response.reason_phrase}: check the address")
        seconds = retry_after_seconds(response.headers.get("retry-after", ""))
        if seconds is not None and seconds > self._limits.most_wait_seconds:
            return _NotNow(f"{address} answers {code} and asks to come back in {seconds:.0f} s")
        return _Asked(f"{address} answers {code} {response.reason_phrase}: try again later", seconds)


def _may_work_now(error: BaseException) -> bool:
    return isinstance(error, RetryableError) and not isinstance(error, _NotNow)


def _note(address: str, call: RetryCallState) -> None:
    error = call.outcome.exception() if call.outcome else None
    _log.warning("attempt %d failed and will be repeated: %s", call.attempt_number, error or address)
