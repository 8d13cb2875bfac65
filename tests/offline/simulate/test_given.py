from pathlib import Path

import pytest

from offline.simulate import SimulationSettings, build_world
from offline.simulate.given import TOPIC_ARTICLES
from offline.simulate.readers import followed_topics
from offline.simulate.vocabulary import load_vocabulary
from schemas.article import Article
from schemas.errors import UsageError
from stream.feeds.jsonl import BadLine, read_articles

HUFFPOST = Path("../shared/data/news/huffpost_2018_2022.jsonl")
SETTINGS = SimulationSettings(days=7)
STORIES = {
    "SPORTS": [f"Pitcher number {n} injured before the league game" for n in ("one", "two", "three", "four")],
    "FOOD & DRINK": [
        f"Bakery {n} raises the price of bread" for n in ("Alba", "Bruno", "Carla", "Dora", "Emil", "Fay")
    ],
}


def articles(stories: dict[str, list[str]]) -> list[Article]:
    return [
        Article(
            article_id=f"{category}-{number}",
            title=title,
            url="https://feed.example",
            source="feed",
            category=category,
            published_at=1_000 * number,
        )
        for category, titles in stories.items()
        for number, title in enumerate(titles)
    ]


def test_words_that_articles_share_become_topics() -> None:
    world = build_world(SETTINGS, articles(STORIES))
    followed = [world.topics[number] for number in followed_topics(world)]
    assert {topic.category for topic in followed} == {"SPORTS", "FOOD & DRINK"}
    assert all(topic.entities for topic in followed)


def test_all_articles_stay_in_their_order_within_the_span() -> None:
    given = articles(STORIES)
    stories = build_world(SETTINGS, given).stories
    assert {story.article.article_id for story in stories} == {article.article_id for article in given}
    times = [story.article.published_at for story in stories]
    assert times == sorted(times)
    assert SETTINGS.start_ms - SETTINGS.span_ms / 7 <= times[0] < times[-1] < SETTINGS.end_ms


def test_everyday_phrases_are_those_of_a_like_category() -> None:
    world = build_world(SETTINGS, articles(STORIES))
    vocabulary = load_vocabulary()
    food = {phrase for row in vocabulary.categories if row.name == "Food" for t in row.topics for phrase in t.everyday}
    assert all(set(topic.everyday) <= food for topic in world.topics if topic.category == "FOOD & DRINK")


def test_everyday_phrases_share_no_word_with_the_topics_articles() -> None:
    vocabulary = load_vocabulary()
    titles = ["Pizza steel and carbonara for the dinner date", *STORIES["FOOD & DRINK"]]
    world = build_world(SETTINGS, articles({"FOOD & DRINK": titles}))
    for topic, shelf in zip(world.topics, world.by_topic, strict=True):
        news = {word for at in range(len(shelf)) for word in vocabulary.word_set(shelf[at].article.title)}
        assert not any(vocabulary.word_set(phrase) & news for phrase in topic.everyday)


def test_a_feed_without_categories_works() -> None:
    world = build_world(SETTINGS, [Article(article_id="a", title="Alone", url="u", source="s", published_at=5)])
    assert followed_topics(world) == [0]
    assert world.topics[0].everyday


def test_an_empty_feed_is_refused() -> None:
    with pytest.raises(UsageError, match="no articles"):
        build_world(SETTINGS, [])


@pytest.mark.skipif(not HUFFPOST.exists(), reason=f"{HUFFPOST} is not there")
def test_ten_thousand_real_articles_make_hundreds_of_topics() -> None:
    rows = [line.row for line in read_articles(HUFFPOST)]
    world = build_world(SETTINGS, [row for row in rows if not isinstance(row, BadLine)])
    followed = followed_topics(world)
    assert len(followed) > 300
    assert min(len(world.by_topic[number]) for number in followed) >= TOPIC_ARTICLES
    assert sum(len(world.by_topic[number]) for number in followed) > 0.5 * len(world.stories)
