"""Which delivered runs are done, and how far each partition may be committed. Pure: no broker, no clock.

Faust keeps single acked offsets and bridges the gaps between them, which lets a commit pass a message that is still
in flight (faust-streaming/faust#606). Here the runs of a partition stay in the order of their delivery, and the
offset to commit is the end of the longest prefix that is acked, whatever holes the offsets have.
"""

from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

Key = TypeVar("Key")


class Run:
    """Consecutive records of one partition, delivered as one message."""

    __slots__ = ("acked", "first", "last")

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.last = last
        self.acked = False


class _Partition:
    """One partition: the runs since the last seek, and those before it that may still be acked."""

    __slots__ = ("before", "origin", "runs", "safe")

    def __init__(self, origin: int) -> None:
        self.origin = origin  # the lowest offset seen: where to go back to while nothing is committed
        self.runs: deque[Run] = deque()
        self.before: deque[Run] = deque()
        self.safe: int | None = None

    def advance(self) -> int | None:
        for runs in (self.runs, self.before, self.runs):
            while runs and (runs[0].acked or self._covers(runs[0])):
                end = runs.popleft().last + 1
                self.safe = end if self.safe is None else max(self.safe, end)
        return self.safe

    def _covers(self, run: Run) -> bool:
        """Read and acknowledged on the other side of a seek."""
        return self.safe is not None and run.last < self.safe


class DeliveredRuns(Generic[Key]):
    """The runs of all partitions that this worker holds."""

    def __init__(self) -> None:
        self._partitions: dict[Key, _Partition] = {}

    def began(self, key: Key, offset: int) -> None:
        """Note that records from `offset` on were fetched, also when they are thrown away before delivery."""
        held = self._partitions.get(key)
        if held is None:
            self._partitions[key] = _Partition(offset)
        elif offset < held.origin:
            held.origin = offset

    def deliver(self, key: Key, first: int, last: int) -> Run:
        """Enter a run that is about to be handed to the application."""
        self.began(key, first)
        run = Run(first, last)
        self._partitions[key].runs.append(run)
        return run

    def safe(self, key: Key) -> int | None:
        """The offset up to which everything delivered is acked; None when nothing is yet."""
        held = self._partitions.get(key)
        return None if held is None else held.advance()

    def origin(self, key: Key) -> int | None:
        """The lowest offset fetched while this worker held the partition."""
        held = self._partitions.get(key)
        return None if held is None else held.origin

    def unfinished(self, key: Key) -> int:
        """How many delivered runs are not covered by `safe`."""
        held = self._partitions.get(key)
        if held is None:
            return 0
        held.advance()
        return len(held.before) + len(held.runs)

    def rewind(self) -> None:
        """All partitions are read again from their committed offsets.

        What was delivered before and is still being worked on counts when it is acked (it was read from the old
        committed offset without a hole); what was dropped from a queue on the way is never acked and holds up nothing.
        """
        for held in self._partitions.values():
            if held.runs:
                held.before, held.runs = held.runs, deque()

    def drop(self, keys: Iterable[Key]) -> None:
        """These partitions belong to another worker now."""
        for key in keys:
            self._partitions.pop(key, None)

    def keys(self) -> set[Key]:
        return set(self._partitions)
