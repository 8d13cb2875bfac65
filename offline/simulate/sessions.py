"""One sitting of a reader: a few pages, searches and clicks on news, minutes apart, on one or two interests."""

from collections.abc import Iterator
from random import Random

import msgspec

from offline.simulate.impressions import Impression, Kiosk
from offline.simulate.noise import noise_writer
from offline.simulate.readers import Interest, Reader
from offline.simulate.settings import SimulationSettings, run_id
from offline.simulate.signals import SignalWriter
from offline.simulate.vocabulary import Vocabulary
from offline.simulate.world import Story, World
from schemas.event import Event

NOISE: str = "noise"
MEAN_PAUSE_MS = 45_000
SESSION_EVENTS = (1, 2, 3, 3, 4, 6)
MEAN_SESSION_EVENTS = sum(SESSION_EVENTS) / len(SESSION_EVENTS)
TRACKED_SHARE = 0.2  # of page URLs: with a parameter that follows a person around
_SLATES = 3  # looked through before a reader gives up on finding something to click


class Happening(msgspec.Struct, frozen=True):
    """A new event and what it is about: a topic's id, or `noise`."""

    event: Event
    origin: str


class SessionWriter:
    """Plays sessions; everything random comes from one generator, so their order decides the outcome."""

    def __init__(self, settings: SimulationSettings, world: World, vocabulary: Vocabulary, rng: Random) -> None:
        self._settings, self._world, self._rng = settings, world, rng
        self._signals = SignalWriter(vocabulary, settings.gap, rng)
        self._noise = noise_writer(settings.noise, vocabulary, rng)
        self._kiosk = Kiosk(world, settings, rng)
        self._prefix = f"sim-{run_id(settings)}"
        self._events = self._slates = 0

    def session(self, reader: Reader, start_ms: int) -> Iterator[Happening | Impression]:
        """What happens from `start_ms` on; takes what it writes from `reader.events_left`."""
        active = reader.active(start_ms)
        focus = self._rng.choices(active, [interest.weight for interest in active])[0]
        planned = min(reader.events_left, SESSION_EVENTS[int(self._rng.random() * len(SESSION_EVENTS))])
        reader.events_left -= planned
        now_ms = start_ms
        while planned > 0:
            written = 0
            if self._rng.random() < reader.shares[2]:
                for row in self._read_news(reader, active, now_ms, planned):
                    written += isinstance(row, Happening)
                    yield row
            if not written:
                written = 1
                yield self._elsewhere(reader, self._interest(active, focus), now_ms)
            planned -= written
            now_ms = min(now_ms + written * self._pause_ms(), self._settings.end_ms - 1)

    def _interest(self, active: list[Interest], focus: Interest) -> Interest:
        return focus if self._rng.random() < 0.7 else active[int(self._rng.random() * len(active))]

    def _pause_ms(self) -> int:
        return 1_000 + int(self._rng.expovariate(1 / MEAN_PAUSE_MS))

    def _read_news(
        self, reader: Reader, active: list[Interest], now_ms: int, limit: int
    ) -> Iterator[Happening | Impression]:
        for _ in range(_SLATES):
            stories = self._kiosk.slate(reader, active, now_ms)
            clicked = self._kiosk.clicks(stories, active)[:limit]
            if stories:
                yield self._impression(reader, stories, clicked, now_ms)
            for number, story in enumerate(clicked):
                moment_ms = min(now_ms + (number + 1) * 1_000, self._settings.end_ms - 1)
                yield self._click(reader, story, moment_ms)
            if clicked:
                return

    def _impression(self, reader: Reader, shown: list[Story], clicked: list[Story], now_ms: int) -> Impression:
        self._slates += 1
        return Impression(
            impression_id=f"{self._prefix}-i{self._slates:08d}",
            user_id=reader.user_id,
            shown_at=now_ms,
            article_ids=tuple(story.article.article_id for story in shown),
            clicked=tuple(story.article.article_id for story in clicked),
        )

    def _click(self, reader: Reader, story: Story, now_ms: int) -> Happening:
        article = story.article
        reader.clicked.append(article.article_id)
        event = Event(
            event_id=self._event_id(),
            user_id=reader.user_id,
            kind="click",
            text=article.title,
            occurred_at=now_ms,
            url=article.url,
            article_id=article.article_id,
        )
        return Happening(event, self._world.topics[story.topic].topic_id)

    def _elsewhere(self, reader: Reader, interest: Interest, now_ms: int) -> Happening:
        """A page or a search, for the interest or about nothing."""
        pages, searches, _ = reader.shares
        is_page = self._rng.random() * (pages + searches) < pages
        topic = self._world.topics[interest.topic]
        if self._rng.random() < self._settings.noise_share:
            text, origin = self._noise(reader.user_id), NOISE
        else:
            story = self._story(interest, now_ms)
            write = self._signals.page if is_page else self._signals.search
            text, origin = write(topic, interest, story), topic.topic_id
        event = Event(
            event_id=self._event_id(),
            user_id=reader.user_id,
            kind="page" if is_page else "search",
            text=text,
            occurred_at=now_ms,
            url=self._page_url() if is_page else None,
        )
        return Happening(event, origin)

    def _story(self, interest: Interest, now_ms: int) -> Story:
        """News of the interest that the reader has in mind: fresh and about its entities, if there is any."""
        return self._kiosk.of_interest(interest, now_ms) or self._world.by_topic[interest.topic].latest(now_ms)

    def _page_url(self) -> str:
        number = int(self._rng.random() * 1e6)
        tracked = "?utm_source=mail" if self._rng.random() < TRACKED_SHARE else ""
        return f"https://pages.example/{number}{tracked}"

    def _event_id(self) -> str:
        self._events += 1
        return f"{self._prefix}-{self._events:08d}"
