"""Notices that events flow but commits do not (rh#625, #596): such a worker looks alive and does nothing."""

from collections.abc import Hashable, Mapping
from typing import Generic, NamedTuple, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Progress(NamedTuple):
    """What one partition looks like at a moment."""

    committed: int | None
    waiting: bool  # something is delivered and not committed, or there to be fetched


class _Since(NamedTuple):
    committed: int | None
    seconds: float


class CommitWatch(Generic[Key]):
    """Holds, for each partition, since when it waits without a commit."""

    def __init__(self, stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds
        self._since: dict[Key, _Since] = {}

    def stalled(self, now: float, seen: Mapping[Key, Progress]) -> list[Key]:
        """The partitions that have waited longer than allowed."""
        self._since = {key: self._next(now, key, progress) for key, progress in seen.items()}
        return [key for key, since in self._since.items() if now - since.seconds > self._stall_seconds]

    def _next(self, now: float, key: Key, progress: Progress) -> _Since:
        before = self._since.get(key)
        if before is None or not progress.waiting or before.committed != progress.committed:
            return _Since(progress.committed, now)
        return before
