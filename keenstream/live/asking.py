"""One request to the API: tried again with growing pauses while it is busy or away, counted, and never an exception."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from random import Random
from typing import Any, Final

import httpx

from keenstream.live.tally import LiveTally

TRIES: Final = 4
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0  # seconds
_AGAIN: Final = {HTTPStatus.TOO_MANY_REQUESTS, 500, 502, 503, 504}

Sleep = Callable[[float], Awaitable[object]]


class Asking:
    """All requests can be repeated: each carries the ids that name it."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        tally: LiveTally,
        rng: Random,
        *,
        sleep: Sleep,
        monotonic: Callable[[], float],
    ) -> None:
        self._client, self._tally, self._rng = client, tally, rng
        self._sleep, self._monotonic = sleep, monotonic

    async def ask(self, method: str, path: str, **given: Any) -> httpx.Response | None:
        """The answer; None when no try was answered, or the last one only by 429 or 5xx."""
        for attempt in range(TRIES):
            response = await self._try(method, path, given)
            if response is not None and response.status_code not in _AGAIN:
                return response
            if attempt < TRIES - 1:
                await self._sleep(self._pause(attempt, response))
        self._tally.given_up += 1
        return None

    async def _try(self, method: str, path: str, given: dict[str, Any]) -> httpx.Response | None:
        began = self._monotonic()
        try:
            response = await self._client.request(method, path, **given)
        except httpx.HTTPError as error:
            self._tally.note_try(self._monotonic() - began, type(error).__name__)
            return None
        status = response.status_code
        known = status < 400 or status == HTTPStatus.NOT_FOUND  # 404: nothing is known of the reader yet
        self._tally.note_try(self._monotonic() - began, None if known else str(status))
        return response

    def _pause(self, attempt: int, response: httpx.Response | None) -> float:
        """Seconds; what the server asks for, else doubling, with chance so that readers do not come back together."""
        asked = response.headers.get("retry-after", "") if response is not None else ""
        pause = float(asked) if asked.isdigit() else _FIRST_PAUSE * 2**attempt
        return min(_LONGEST_PAUSE, pause) * (0.5 + self._rng.random())
