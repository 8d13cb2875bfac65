"""What the supervisor keeps running: one part, how to start it, and how to tell that it works."""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from keenstream.stack.process import Command
from schemas.errors import UsageError


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A server or worker. `prepare` runs before every start; a probe makes a real request and raises when it fails."""

    name: str
    prepare: Callable[[], Command]
    probe: Callable[[], None] | None  # None: a task that is done when it exits with 0
    probe_starting: Callable[[], None] | None = None  # until the first success; default: probe
    repair: Callable[[], None] | None = None  # tried once after failed probes, before a restart
    clean: Callable[[], object] | None = None  # after every end of the process
    depends_on: tuple[str, ...] = ()
    address: str = ""
    start_timeout_seconds: float = 90.0
    grace_seconds: float = 5.0
    probe_interval_seconds: float = 5.0
    probe_failures: int = 3


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait before restart number n of a part; a part that stayed ready for long starts again at n = 0."""

    first_seconds: float = 0.5
    most_seconds: float = 30.0
    forgiven_after_seconds: float = 60.0

    def seconds(self, restarts: int) -> float:
        return float(min(self.most_seconds, self.first_seconds * 2 ** min(restarts, 16)))


def levels(parts: Sequence[Part]) -> list[list[Part]]:
    """Parts by depth of their dependencies: those of one level may end at the same time, the last level first."""
    done: set[str] = set()
    left, found = list(parts), list[list[Part]]()
    _refuse_unknown(parts)
    while left:
        level = [part for part in left if set(part.depends_on) <= done]
        if not level:
            raise UsageError(f"parts wait for each other: {', '.join(part.name for part in left)}")
        found.append(level)
        done |= {part.name for part in level}
        left = [part for part in left if part.name not in done]
    return found


def _refuse_unknown(parts: Iterable[Part]) -> None:
    names = [part.name for part in parts]
    if len(names) != len(set(names)):
        raise UsageError(f"two parts of one name among {', '.join(sorted(names))}")
    for part in parts:
        if unknown := set(part.depends_on) - set(names):
            raise UsageError(f"{part.name} depends on {', '.join(sorted(unknown))}, which this stack does not start")
