"""A news world: topics, and stories in the order in which they appear."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from schemas.article import Article


@dataclass(frozen=True, slots=True)
class Topic:
    """What an interest is about. `everyday` are the phrases of its readers outside the news."""

    topic_id: str
    category: str
    entities: tuple[str, ...]
    everyday: tuple[str, ...]
    followed: bool = True  # False: what belongs to no topic; nobody's interest


@dataclass(frozen=True, slots=True)
class Story:
    """One article with what the simulator knows of it."""

    article: Article
    topic: int  # position in World.topics
    entities: frozenset[str]
    words: tuple[str, ...]  # content words of the headline
    appeal: float  # 0-1: how far it draws readers who do not follow its topic


class Shelf:
    """Stories by time: which ones are fresh at a moment."""

    __slots__ = ("_stories", "_times")

    def __init__(self, stories: Iterable[Story]) -> None:
        self._stories = sorted(stories, key=lambda story: (story.article.published_at, story.article.article_id))
        self._times = [story.article.published_at for story in self._stories]

    def __len__(self) -> int:
        return len(self._stories)

    def fresh(self, now_ms: int, fresh_ms: int) -> tuple[int, int]:
        """Bounds of the positions published in the `fresh_ms` up to `now_ms`; equal when there are none."""
        return bisect_left(self._times, now_ms - fresh_ms), bisect_right(self._times, now_ms)

    def latest(self, now_ms: int) -> Story:
        """The newest story at a moment; the first of all when none is out yet."""
        return self._stories[max(0, bisect_right(self._times, now_ms) - 1)]

    def __getitem__(self, position: int) -> Story:
        return self._stories[position]


class World:
    """All topics and stories, with a shelf for everything and one for each topic."""

    def __init__(self, topics: Sequence[Topic], stories: Iterable[Story]) -> None:
        self.topics = tuple(topics)
        self.front_page = Shelf(stories)
        rows: list[list[Story]] = [[] for _ in self.topics]
        for story in self.stories:
            rows[story.topic].append(story)
        self.by_topic = tuple(Shelf(row) for row in rows)

    @property
    def stories(self) -> list[Story]:
        """Oldest first."""
        return [self.front_page[position] for position in range(len(self.front_page))]
