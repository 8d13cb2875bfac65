"""What the simulator knows and no reader tells: topics, what articles and events are about, interests."""

from collections.abc import Iterable

import msgspec

from offline.simulate.readers import Reader
from offline.simulate.world import Story, Topic, World


class TopicTruth(msgspec.Struct, frozen=True, tag="topic", tag_field="type"):
    topic: str
    category: str
    entities: tuple[str, ...]


class ArticleTruth(msgspec.Struct, frozen=True, tag="article", tag_field="type"):
    article_id: str
    topic: str
    entities: tuple[str, ...]


class InterestTruth(msgspec.Struct, frozen=True):
    topic: str
    entities: tuple[str, ...]
    weight: float
    from_ms: int
    until_ms: int


class ReaderTruth(msgspec.Struct, frozen=True, tag="reader", tag_field="type"):
    user_id: str
    cold: bool
    habit: str
    hours: str
    interests: tuple[InterestTruth, ...]


class EventTruth(msgspec.Struct, frozen=True, tag="event", tag_field="type"):
    """One row per distinct event. `origin` is a topic, or `noise`."""

    event_id: str
    origin: str


Truth = TopicTruth | ArticleTruth | ReaderTruth | EventTruth


def topic_truths(world: World) -> Iterable[TopicTruth]:
    return (TopicTruth(topic.topic_id, topic.category, topic.entities) for topic in world.topics)


def article_truth(story: Story, topics: tuple[Topic, ...]) -> ArticleTruth:
    return ArticleTruth(story.article.article_id, topics[story.topic].topic_id, tuple(sorted(story.entities)))


def reader_truth(reader: Reader, topics: tuple[Topic, ...]) -> ReaderTruth:
    return ReaderTruth(
        reader.user_id,
        reader.cold,
        reader.habit,
        reader.hours,
        tuple(
            InterestTruth(
                topics[interest.topic].topic_id,
                tuple(sorted(interest.entities)),
                round(interest.weight, 3),
                interest.from_ms,
                interest.until_ms,
            )
            for interest in reader.interests
        ),
    )
