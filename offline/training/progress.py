"""How far a run is: the step, the steps in all, and the time that the rest will take at the pace of late."""

from collections import deque
from collections.abc import Callable

import msgspec

RECENT = 20  # steps whose pace counts


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    stage: str
    step: int
    steps: int
    seconds_left: float | None = None  # None until a step has been timed
    measures: dict[str, float] = {}


Watch = Callable[[Progress], None]


class Pace:
    """Seconds per step over the last `RECENT` steps; evaluation between steps counts, since it takes time too."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=RECENT + 1)

    def tick(self, seconds: float) -> None:
        """A step ended at this moment of a monotonic clock."""
        self._times.append(seconds)

    def seconds_for(self, steps: int) -> float | None:
        if len(self._times) < 2:
            return None
        return steps * (self._times[-1] - self._times[0]) / (len(self._times) - 1)
