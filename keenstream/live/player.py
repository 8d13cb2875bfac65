"""Plays readers against the API in accelerated time.

A visit: the reader browses or searches for what interests them, looks at candidates, clicks by true interest and place,
and what was done is posted as outcomes (the experiment's log) and as events (the profile). So what is clicked
teaches the profile, and the profile decides what is shown next. Acceleration shortens the pauses between
visits; all times are the real ones, as the API refuses the future.
"""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any
from urllib.parse import quote

import msgspec

from keenstream.live.asking import Asking, Sleep
from keenstream.live.tally import LiveTally
from keenstream.live.world import LiveReader, LiveWorld, looked_at
from offline.simulate.truth import InterestTruth

_DAY_SECONDS = 86_400
_SIGNALS = (0, 1, 1, 2, 3)  # pages and searches of a visit
_MEAN_DWELL_SECONDS = 60.0
_LONGEST_DWELL_SECONDS = 3_600.0


class LiveSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`speed`: simulated seconds in a real one."""

    run: str  # in every id, so that two runs do not meet
    speed: float = 3_600.0
    seconds: float | None = None  # real ones; None: until stopped
    visits_per_day: float = 4.0  # of a reader, in simulated time
    places: int = 10
    concurrency: int = 32

    def mean_pause(self, readers: int) -> float:
        """Real seconds between two visits of anybody."""
        return _DAY_SECONDS / (self.visits_per_day * self.speed * max(1, readers))


class _Answer(msgspec.Struct, frozen=True):
    """What a reader sees of an answer."""

    request_id: str
    source: str
    candidates: list["_Shown"]
    arm: str = ""


class _Shown(msgspec.Struct, frozen=True):
    article_id: str
    title: str
    url: str


class LivePlayer:
    """`clock_ms`, `sleep` and `rng` are passed in; `run` plays until the time is over or it is cancelled."""

    def __init__(
        self,
        settings: LiveSettings,
        world: LiveWorld,
        asking: Asking,
        tally: LiveTally,
        rng: Random,
        *,
        clock_ms: Callable[[], int],
        sleep: Sleep,
    ) -> None:
        self._settings, self._world, self._asking, self._tally = settings, world, asking, tally
        self._rng, self._clock_ms, self._sleep = rng, clock_ms, sleep
        self._number = 0

    async def run(self) -> None:
        """Visits as a Poisson process, at most `concurrency` at once: a slow system slows its readers down."""
        slots = asyncio.Semaphore(self._settings.concurrency)
        pause = self._settings.mean_pause(len(self._world.readers))
        try:
            async with asyncio.timeout(self._settings.seconds), asyncio.TaskGroup() as visits:
                while True:
                    await slots.acquire()
                    task = visits.create_task(self.visit(self._rng.choice(self._world.readers)))
                    task.add_done_callback(lambda _: slots.release())
                    await self._sleep(self._rng.expovariate(1 / pause))
        except TimeoutError:
            return

    async def visit(self, reader: LiveReader) -> None:
        self._tally.visits += 1
        if signals := [self._signal(reader) for _ in range(self._rng.choice(_SIGNALS))]:
            await self._asking.ask("POST", "/v1/events", json={"events": signals})
        answer = await self._look(reader)
        if answer is None:
            return
        clicked = [
            shown
            for place, shown in enumerate(answer.candidates, start=1)
            if self._rng.random() < looked_at(place) * reader.appeal(self._world.truths.get(shown.article_id))
        ]
        self._tally.note_answer(answer.arm, answer.source, len(answer.candidates), len(clicked))
        outcomes = self._outcomes(reader, answer, clicked)
        await self._asking.ask("POST", "/v1/outcomes", json={"outcomes": outcomes})
        if clicks := [self._click(reader, shown) for shown in clicked]:
            await self._asking.ask("POST", "/v1/events", json={"events": clicks})

    async def _look(self, reader: LiveReader) -> _Answer | None:
        asked = {"k": self._settings.places, "request_id": self._id()}
        path = f"/v1/users/{quote(reader.user_id, safe='')}/candidates"
        response = await self._asking.ask("GET", path, params=asked)
        if response is None:
            return None
        if response.status_code == 404:
            self._tally.unknown_readers += 1
            return None
        if response.is_error:
            return None  # counted as an error by its status
        try:
            return msgspec.json.decode(response.content, type=_Answer)
        except msgspec.DecodeError:
            self._tally.errors["not an answer of this API"] += 1
            return None

    def _signal(self, reader: LiveReader) -> dict[str, Any]:
        """A page with an interest's headline, or a search for some of its words."""
        interest = self._rng.choices(reader.interests, [row.weight for row in reader.interests])[0]
        title = self._title(interest)
        if self._rng.random() < 0.5:
            return self._event(reader, "page", title)
        words = title.split()
        first = self._rng.randrange(max(1, len(words) - 3))
        return self._event(reader, "search", " ".join(words[first : first + 4]))

    def _title(self, interest: InterestTruth) -> str:
        """Of a story of the topic, about the interest's entities when there is one."""
        stories = self._world.by_topic.get(interest.topic, ())
        wanted = [name for name in stories if set(self._world.truths[name].entities) & set(interest.entities)]
        if not (wanted or stories):
            return " ".join(interest.entities) or interest.topic
        return self._world.articles[self._rng.choice(wanted or stories)].title

    def _event(self, reader: LiveReader, kind: str, text: str) -> dict[str, Any]:
        return {
            "event_id": self._id(),
            "user_id": reader.user_id,
            "kind": kind,
            "text": text,
            "occurred_at": self._clock_ms(),
        }

    def _click(self, reader: LiveReader, shown: _Shown) -> dict[str, Any]:
        return {**self._event(reader, "click", shown.title), "url": shown.url, "article_id": shown.article_id}

    def _outcomes(self, reader: LiveReader, answer: _Answer, clicked: list[_Shown]) -> list[dict[str, Any]]:
        """The visit, and for each click a dwell."""
        rows: list[tuple[str, str | None, float]] = [("visit", None, 1.0)]
        for shown in clicked:
            dwell = min(_LONGEST_DWELL_SECONDS, self._rng.expovariate(1 / _MEAN_DWELL_SECONDS))
            rows += [("click", shown.article_id, 1.0), ("dwell", shown.article_id, round(dwell, 1))]
        now_ms = self._clock_ms()
        return [
            {
                "outcome_id": self._id(),
                "request_id": answer.request_id,
                "user_id": reader.user_id,
                "kind": kind,
                "value": value,
                "occurred_at": now_ms,
                **({"article_id": article} if article else {}),
            }
            for kind, article, value in rows
        ]

    def _id(self) -> str:
        self._number += 1
        return f"live-{self._settings.run}-{self._number}"
