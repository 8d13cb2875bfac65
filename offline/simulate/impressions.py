"""Slates of news, and which of their articles a reader clicks: what is looked at depends on the position."""

from random import Random

import msgspec

from offline.simulate.readers import Interest, Reader
from offline.simulate.settings import DAY_MS, SimulationSettings
from offline.simulate.world import Shelf, Story, World

FRESH_MS = 3 * DAY_MS  # news older than this is not shown
INTEREST_SHARE = 0.4  # of a slate: what a recommender already knows
POPULAR_SHARE = 0.3  # of a slate: what everybody clicks; the rest is random
EXAMINATION_DECAY = 0.6  # a place is looked at with probability 1 / place^decay
WANTED, ON_TOPIC, IDLE, CURIOSITY = 0.85, 0.12, 0.01, 0.3  # click probabilities of a story that is looked at
_CROWD = 8  # the popular story is the most appealing of so many


class Impression(msgspec.Struct, frozen=True, kw_only=True):
    """One slate as it was shown, in random order, and what was clicked."""

    impression_id: str
    user_id: str
    shown_at: int  # UTC ms
    article_ids: tuple[str, ...]  # by position, the first at the top
    clicked: tuple[str, ...]


class Kiosk:
    """Fills slates from a world and lets readers click."""

    def __init__(self, world: World, settings: SimulationSettings, rng: Random) -> None:
        self._world, self._rng = world, rng
        size = settings.slate_size
        self._wanted = round(size * INTEREST_SHARE)
        self._popular = round(size * POPULAR_SHARE)
        self._random = size - self._wanted - self._popular
        self._looked_at = [(place + 1) ** -EXAMINATION_DECAY for place in range(size)]

    def slate(self, reader: Reader, active: list[Interest], now_ms: int) -> list[Story]:
        """Distinct stories that the reader has not clicked, in random order; fewer when there is little news."""
        low, high = self._world.front_page.fresh(now_ms, FRESH_MS)
        found: dict[str, Story] = {}
        for interest in self._rng.choices(active, [row.weight for row in active], k=self._wanted):
            self._put(found, reader, self.of_interest(interest, now_ms))
        if low < high:
            for _ in range(self._popular):
                self._put(found, reader, self._crowd_pleaser(low, high))
            for _ in range(self._random):
                self._put(found, reader, self._any(self._world.front_page, low, high))
        stories = list(found.values())
        self._rng.shuffle(stories)
        return stories

    def clicks(self, stories: list[Story], active: list[Interest]) -> list[Story]:
        """Stories that were looked at and liked, from the top."""
        random = self._rng.random
        return [
            story
            for story, looked_at in zip(stories, self._looked_at, strict=False)
            if random() < looked_at * appeal(story, active)
        ]

    @staticmethod
    def _put(found: dict[str, Story], reader: Reader, story: Story | None) -> None:
        if story and story.article.article_id not in reader.clicked:
            found[story.article.article_id] = story

    def of_interest(self, interest: Interest, now_ms: int) -> Story | None:
        """A fresh story of the topic, more often than not about the interest's entities; None when there is none."""
        shelf = self._world.by_topic[interest.topic]
        low, high = shelf.fresh(now_ms, FRESH_MS)
        if low == high:
            return None
        first = self._any(shelf, low, high)
        return first if interest.entities & first.entities else self._any(shelf, low, high)

    def _crowd_pleaser(self, low: int, high: int) -> Story:
        return max((self._any(self._world.front_page, low, high) for _ in range(_CROWD)), key=_by_appeal)

    def _any(self, shelf: Shelf, low: int, high: int) -> Story:
        return shelf[low + int(self._rng.random() * (high - low))]


def appeal(story: Story, active: list[Interest]) -> float:
    """Probability of a click by a reader with these interests who looks at the story."""
    best = IDLE + CURIOSITY * story.appeal
    for interest in active:
        if interest.topic == story.topic:
            best = max(best, WANTED if interest.entities & story.entities else ON_TOPIC)
    return best


def _by_appeal(story: Story) -> float:
    return story.appeal
