"""Which readers the demo shows: two with signals from every domain, and a cold one."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from schemas.event import Event

WARM_SIGNALS = range(6, 15)  # enough to see an interest, few enough to print
COLD_SIGNALS = range(2, 4)


def choose_readers(events: Iterable[Event]) -> list[str]:
    """Three user ids, the same for the same events; fewer when there are no such readers."""
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for event in events:
        kinds[event.user_id][event.kind] += 1
    warm = [user for user, seen in sorted(kinds.items()) if len(seen) == 3 and seen.total() in WARM_SIGNALS]
    cold = [user for user, seen in sorted(kinds.items()) if seen.total() in COLD_SIGNALS]
    return warm[:2] + cold[:1]
