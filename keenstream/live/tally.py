"""What live readers met: requests, errors, latencies, and click-through by arm and by source."""

from collections import Counter, deque
from typing import Final

import msgspec
import numpy as np

RECENT: Final = 10_000  # latencies kept for the quantiles
NO_ARM: Final = "(no experiment)"


class Rate(msgspec.Struct):
    """Clicks of shown places."""

    shown: int = 0
    clicks: int = 0

    def note(self, shown: int, clicks: int) -> None:
        self.shown += shown
        self.clicks += clicks

    @property
    def ctr(self) -> float | None:
        return self.clicks / self.shown if self.shown else None


class RateRow(msgspec.Struct, frozen=True, kw_only=True):
    shown: int
    clicks: int
    ctr: float | None  # none when nothing was shown


class LiveSummary(msgspec.Struct, frozen=True, kw_only=True):
    """`errors` counts tries by status code or kind of failure; `given_up` counts requests that no try answered."""

    seconds: float
    visits: int
    requests: int
    requests_per_second: float
    errors: dict[str, int]
    given_up: int
    unknown_readers: int  # answers to readers of whom the system knew nothing yet
    latency_ms: dict[str, float]  # quantiles of the latest RECENT answers, failures included; empty without any
    by_arm: dict[str, RateRow]
    by_source: dict[str, RateRow]


class LiveTally:
    """Counts of one run."""

    def __init__(self) -> None:
        self.visits = self.requests = self.given_up = self.unknown_readers = 0
        self.errors: Counter[str] = Counter()
        self.by_arm: dict[str, Rate] = {}
        self.by_source: dict[str, Rate] = {}
        self._latencies: deque[float] = deque(maxlen=RECENT)

    def note_try(self, seconds: float, error: str | None) -> None:
        """One try of a request."""
        self.requests += 1
        self._latencies.append(seconds * 1000)
        if error:
            self.errors[error] += 1

    def note_answer(self, arm: str, source: str, shown: int, clicks: int) -> None:
        self.by_arm.setdefault(arm or NO_ARM, Rate()).note(shown, clicks)
        self.by_source.setdefault(source, Rate()).note(shown, clicks)

    def summary(self, seconds: float) -> LiveSummary:
        values = np.array(self._latencies)
        quantiles = {f"p{q}": round(float(np.percentile(values, q)), 2) for q in (50, 95, 99)} if len(values) else {}
        return LiveSummary(
            seconds=round(seconds, 2),
            visits=self.visits,
            requests=self.requests,
            requests_per_second=round(self.requests / seconds, 2) if seconds > 0 else 0.0,
            errors=dict(sorted(self.errors.items())),
            given_up=self.given_up,
            unknown_readers=self.unknown_readers,
            latency_ms=quantiles,
            by_arm=_rows(self.by_arm),
            by_source=_rows(self.by_source),
        )


def _rows(rates: dict[str, Rate]) -> dict[str, RateRow]:
    return {name: RateRow(shown=r.shown, clicks=r.clicks, ctr=r.ctr) for name, r in sorted(rates.items())}
