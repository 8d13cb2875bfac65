"""Readers: two to five interests that drift, habits per domain, and a time of day of their own."""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from offline.simulate.settings import DAY_MS, SimulationSettings
from offline.simulate.world import Topic, World

ENTITY_CHOICES = (1, 1, 2)  # an interest is a topic seen through one or two of its entities
COLD_EVENTS = (1, 2, 3)
REMEMBERED_CLICKS = 40  # nobody clicks the same story twice; memory is bounded
_GAMMA_SHAPE = 2.0  # of the activity over readers: most are below the mean, some far above

# Weight of each hour, starting at midnight.
_HOURS: dict[str, tuple[int, ...]] = {
    "early": (1, 1, 1, 1, 2, 6, 12, 14, 10, 7, 6, 5, 5, 4, 4, 4, 4, 5, 5, 4, 3, 2, 1, 1),
    "office": (1, 1, 1, 1, 1, 1, 3, 7, 10, 9, 8, 9, 14, 12, 8, 7, 7, 6, 4, 4, 4, 3, 2, 1),
    "evening": (2, 1, 1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 5, 4, 4, 4, 5, 7, 10, 13, 15, 14, 9, 5),
    "night": (12, 9, 7, 4, 2, 1, 1, 1, 2, 2, 3, 3, 4, 4, 4, 4, 4, 5, 6, 7, 8, 10, 13, 14),
}
# Share of pages, searches and clicks among the events.
_HABITS: dict[str, tuple[float, float, float]] = {
    "browser": (0.60, 0.15, 0.25),
    "searcher": (0.25, 0.50, 0.25),
    "news reader": (0.20, 0.15, 0.65),
    "balanced": (0.36, 0.28, 0.36),
}


@dataclass(frozen=True, slots=True)
class Interest:
    """A topic through some of its entities, from `from_ms` until `until_ms`."""

    topic: int
    entities: frozenset[str]
    weight: float
    from_ms: int
    until_ms: int


@dataclass(slots=True)
class Reader:
    """What a reader is like, and how far the simulation has come with them."""

    user_id: str
    interests: tuple[Interest, ...]
    habit: str
    hours: str
    cold: bool
    events_left: int
    day: float = 0.0  # position on the activity scale, 0 to settings.days
    clicked: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED_CLICKS))

    @property
    def shares(self) -> tuple[float, float, float]:
        return _HABITS[self.habit]

    def active(self, now_ms: int) -> list[Interest]:
        return [interest for interest in self.interests if interest.from_ms <= now_ms < interest.until_ms]


def make_readers(settings: SimulationSettings, world: World) -> list[Reader]:
    """`reader-000001` and so on."""
    rng = Random(f"{settings.seed}:readers")
    told = followed_topics(world)
    numbers = range(1, settings.readers + 1)
    return [_make_reader(f"reader-{number:06d}", settings, world.topics, told, rng) for number in numbers]


def followed_topics(world: World) -> list[int]:
    """Topics that readers can be interested in: those with a story; everything when no topic is worth following."""
    told = [number for number, shelf in enumerate(world.by_topic) if len(shelf)]
    return [number for number in told if world.topics[number].followed] or told


def _make_reader(
    user_id: str, settings: SimulationSettings, topics: Sequence[Topic], told: Sequence[int], rng: Random
) -> Reader:
    cold = rng.random() < settings.cold_share
    chosen = rng.sample(told, min(len(told), rng.randint(2, 5)))
    interests = [interest for topic in chosen for interest in _drifting(topic, settings, topics, told, rng)]
    warm_events = max(4, round(rng.gammavariate(_GAMMA_SHAPE, settings.events_per_reader / _GAMMA_SHAPE)))
    return Reader(
        user_id=user_id,
        interests=tuple(interests),
        habit=rng.choice(tuple(_HABITS)),
        hours=rng.choice(tuple(_HOURS)),
        cold=cold,
        events_left=rng.choice(COLD_EVENTS) if cold else warm_events,
    )


def _drifting(
    topic: int, settings: SimulationSettings, topics: Sequence[Topic], told: Sequence[int], rng: Random
) -> list[Interest]:
    """One interest over the whole span, replaced by another whenever drift strikes (a Poisson process)."""
    weight, start_ms, found = rng.uniform(0.3, 3.0), settings.start_ms, list[Interest]()
    while True:
        wait_days = rng.expovariate(settings.drift_per_week / 7) if settings.drift_per_week else float("inf")
        wait_ms = max(1, int(min(wait_days, settings.days) * DAY_MS))
        until_ms = min(settings.end_ms, start_ms + wait_ms)
        found.append(Interest(topic, _entities(topics[topic], rng), weight, start_ms, until_ms))
        if until_ms >= settings.end_ms:
            return found
        topic, start_ms = rng.choice(told), until_ms


def _entities(topic: Topic, rng: Random) -> frozenset[str]:
    return frozenset(rng.sample(topic.entities, min(len(topic.entities), rng.choice(ENTITY_CHOICES))))


class DayClock:
    """Turns positions on a scale of equal activity into moments: later positions are later moments, hour by habit."""

    def __init__(self, settings: SimulationSettings) -> None:
        self._settings = settings
        self._whole_days = int(settings.days)
        self._first_hour = settings.start_ms % DAY_MS / DAY_MS * 24
        self._shares = {name: _cumulative(weights, self._first_hour) for name, weights in _HOURS.items()}

    def moment(self, hours: str, position: float) -> int:
        """UTC ms. Days that are not whole are not warped."""
        day = int(position)
        part = position - day
        if day < self._whole_days:
            part = self._warped(self._shares[hours], part)
        return min(self._settings.start_ms + int((day + part) * DAY_MS), self._settings.end_ms - 1)

    @staticmethod
    def _warped(shares: tuple[float, ...], part: float) -> float:
        hour = min(23, bisect_right(shares, part) - 1)
        return (hour + (part - shares[hour]) / (shares[hour + 1] - shares[hour])) / 24


def _cumulative(weights: Sequence[int], first_hour: float) -> tuple[float, ...]:
    """Share of the activity before each of the 24 hours that follow `first_hour`; 0 first, 1 last."""
    turned = [weights[(int(first_hour) + hour) % 24] for hour in range(24)]
    total = sum(turned)
    return tuple(sum(turned[:hour]) / total for hour in range(25))
