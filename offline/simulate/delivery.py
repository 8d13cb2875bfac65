"""The whole simulation as one stream in the order of delivery, with late events and duplicates, in bounded memory.

One heap holds the next session of each reader, another what was written but is not delivered yet: nothing that a later
session writes can be due before that session starts, so everything due by then may leave.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush, heapreplace
from random import Random

import msgspec

from offline.simulate.impressions import Impression
from offline.simulate.readers import DayClock, Reader, make_readers
from offline.simulate.sessions import MEAN_SESSION_EVENTS, Happening, SessionWriter
from offline.simulate.settings import SimulationSettings
from offline.simulate.vocabulary import load_vocabulary
from offline.simulate.world import World
from schemas.event import Event


class Delivery(msgspec.Struct, frozen=True):
    """An event as it arrives. `repeat` marks the second arrival of a duplicate."""

    event: Event
    origin: str  # a topic's id, or `noise`
    delivered_at: int  # UTC ms
    repeat: bool = False


def simulate_world(
    settings: SimulationSettings, world: World, readers: list[Reader] | None = None
) -> Iterator[Delivery | Impression]:
    """Deliveries and impressions in the order of their times. `readers` (default: made here) are used up."""
    rng = Random(f"{settings.seed}:sessions")
    crowd = make_readers(settings, world) if readers is None else readers
    sessions = SessionWriter(settings, world, load_vocabulary(), rng)
    clock = DayClock(settings)
    agenda = [(_next_session(reader, settings, clock, rng), number) for number, reader in enumerate(crowd)]
    heapify(agenda)
    outbox = _Outbox(settings, rng)
    while agenda:
        now_ms, number = agenda[0]
        yield from outbox.due(now_ms)
        reader = crowd[number]
        for row in sessions.session(reader, now_ms):
            outbox.put(row)
        if reader.events_left:
            heapreplace(agenda, (max(now_ms, _next_session(reader, settings, clock, rng)), number))
        else:
            heappop(agenda)
    yield from outbox.due(None)


def _next_session(reader: Reader, settings: SimulationSettings, clock: DayClock, rng: Random) -> int:
    """The first of the sessions still to come, as if they were spread evenly over the rest of the reader's activity."""
    to_come = max(1.0, reader.events_left / MEAN_SESSION_EVENTS)
    reader.day += (settings.days - reader.day) * (1 - rng.random() ** (1 / to_come))
    return clock.moment(reader.hours, reader.day)


class _Outbox:
    def __init__(self, settings: SimulationSettings, rng: Random) -> None:
        self._settings, self._rng = settings, rng
        self._heap: list[tuple[int, int, Delivery | Impression]] = []
        self._count = 0

    def put(self, row: Happening | Impression) -> None:
        if isinstance(row, Impression):
            self._push(row.shown_at, row)
            return
        settings, random = self._settings, self._rng.random
        occurred_at = row.event.occurred_at
        late_ms = self._delay() if random() < settings.late_share else 0
        self._push(occurred_at + late_ms, Delivery(row.event, row.origin, occurred_at + late_ms))
        if random() < settings.duplicate_share:
            again_at = occurred_at + late_ms + self._delay()
            self._push(again_at, Delivery(row.event, row.origin, again_at, repeat=True))

    def due(self, before_ms: int | None) -> Iterator[Delivery | Impression]:
        """What is to arrive before a moment, oldest first; everything for None."""
        heap = self._heap
        while heap and (before_ms is None or heap[0][0] < before_ms):
            yield heappop(heap)[2]

    def _push(self, at_ms: int, row: Delivery | Impression) -> None:
        self._count += 1
        heappush(self._heap, (at_ms, self._count, row))

    def _delay(self) -> int:
        return 1 + int(self._rng.random() * self._settings.late_seconds * 1_000)
