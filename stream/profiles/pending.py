"""Readers whose new signals wait until a list is due."""

import heapq
from math import inf

Key = tuple[int, bytes]  # partition, user_id


class PendingRefreshes:
    """Due times by reader; a later note replaces an earlier one. Memory is one entry per waiting reader."""

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []

    def __len__(self) -> int:
        return len(self._due)

    def note(self, key: Key, due_at: float) -> None:
        """`due_at` is UTC ms; infinite = nothing waits."""
        if due_at == inf:
            self._due.pop(key, None)
        elif self._due.get(key) != due_at:
            self._due[key] = due_at
            heapq.heappush(self._heap, (due_at, key))

    def due(self, now_ms: int) -> list[Key]:
        """The readers whose time has come; they are forgotten here, and noted again by whoever serves them."""
        found: list[Key] = []
        while self._heap and self._heap[0][0] <= now_ms:
            due_at, key = heapq.heappop(self._heap)
            if self._due.get(key) == due_at:
                del self._due[key]
                found.append(key)
        return found
