"""A circuit breaker: after some failures in a row the part is left alone for a while, then tried with a single call."""

import time
from collections.abc import Callable, Sequence
from typing import Literal

from schemas.clients.models import Answer, Student
from schemas.errors import RetryableError, Unavailable

State = Literal["closed", "open", "half-open"]


class Breaker:
    """Counts failures in a row. Closed: calls pass. Open: none. Half-open: one trial, which decides."""

    def __init__(self, *, failures: int, reset_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._reset_seconds, self._clock = failures, reset_seconds, clock
        self._failures = 0
        self._opened_at: float | None = None
        self._trial = False

    @property
    def state(self) -> State:
        if self._opened_at is None:
            return "closed"
        return "open" if self.wait_seconds() > 0 else "half-open"

    def wait_seconds(self) -> float:
        """0 when a call may be made, else how long to pause."""
        if self._opened_at is None:
            return 0.0
        return max(0.0, self._opened_at + self._reset_seconds - self._clock())

    def enter(self) -> None:
        """Ask to make a call; raises Unavailable while there is nothing to hope for."""
        if self.state == "open" or self._trial:
            raise Unavailable(f"failed {self._failures} times in a row, next attempt in {self.wait_seconds():.1f} s")
        self._trial = self.state == "half-open"

    def succeed(self) -> None:
        self._failures, self._opened_at, self._trial = 0, None, False

    def fail(self) -> None:
        self._failures += 1
        if self._trial or self._failures >= self._limit:
            self._opened_at = self._clock()
        self._trial = False

    def abandon(self) -> None:
        """The call ended without telling anything about the part, for instance cancelled."""
        self._trial = False


class GuardedStudent:
    """A student behind a breaker: `write` raises Unavailable at once while it is open.

    A call counts as a failure when every prompt failed and might have been answered later; a bad prompt does not count.
    """

    def __init__(self, student: Student, breaker: Breaker) -> None:
        self.breaker, self._student = breaker, student

    async def write(self, prompts: Sequence[str], *, samples: int = 1, seed: int = 0) -> list[Answer]:
        self.breaker.enter()
        try:
            answers = await self._student.write(prompts, samples=samples, seed=seed)
        except BaseException:
            self.breaker.abandon()
            raise
        if answers and all(isinstance(answer, RetryableError) for answer in answers):
            self.breaker.fail()
        else:
            self.breaker.succeed()
        return answers

    async def close(self) -> None:
        await self._student.close()
