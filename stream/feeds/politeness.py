"""What a guest keeps to: robots.txt, a pause between two requests to one host, and Retry-After."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.robotparser import RobotFileParser

MAX_PAUSE_SECONDS = 30.0  # a Crawl-delay above it is not kept


def retry_after_seconds(value: str, now: datetime | None = None) -> float | None:
    """Of a Retry-After header, a number or a date; None when it is neither."""
    text = value.strip()
    if text.isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (zoned - (now or datetime.now(UTC))).total_seconds())


class Robots:
    """The rules of one host for one agent."""

    def __init__(self, text: str, agent: str) -> None:
        self._parser = RobotFileParser()
        self._parser.parse(text.splitlines())
        self._agent = agent

    def allows(self, address: str) -> bool:
        return self._parser.can_fetch(self._agent, address)

    @property
    def pause_seconds(self) -> float:
        try:
            return min(MAX_PAUSE_SECONDS, float(self._parser.crawl_delay(self._agent) or 0.0))
        except ValueError:
            return 0.0


class Turns:
    """One request to a host at a time, with a pause between the end of one and the start of the next."""

    def __init__(self, pause_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._last: dict[str, float] = {}
        self._pauses: dict[str, float] = {}

    def slow_down(self, host: str, pause_seconds: float) -> None:
        self._pauses[host] = max(self._pause_seconds, pause_seconds)

    def lock(self, host: str) -> asyncio.Lock:
        return self._locks[host]

    async def wait(self, host: str) -> None:
        """With the lock held, before a request."""
        if host in self._last:
            due = self._last[host] + self._pauses.get(host, self._pause_seconds)
            await asyncio.sleep(max(0.0, due - self._clock()))

    def done(self, host: str) -> None:
        self._last[host] = self._clock()
