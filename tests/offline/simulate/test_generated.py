from collections import Counter

from offline.simulate import SimulationSettings, build_world
from offline.simulate.world import World
from tests.offline.simulate.conftest import SMALL


def test_every_article_says_that_it_is_generated(world: World) -> None:
    assert {story.article.source for story in world.stories} == {"generated"}


def test_thousands_of_articles_have_titles_of_their_own() -> None:
    stories = build_world(SimulationSettings(articles=6_000)).stories
    assert len({story.article.title.casefold() for story in stories}) == 6_000
    assert len({story.article.article_id for story in stories}) == 6_000


def test_articles_end_with_the_simulation(world: World) -> None:
    times = [story.article.published_at for story in world.stories]
    assert times == sorted(times)
    assert SMALL.start_ms - SMALL.span_ms / 7 <= times[0] < times[-1] < SMALL.end_ms


def test_a_story_names_its_entities(world: World) -> None:
    for story in world.stories:
        assert story.entities
        text = f"{story.article.title} {story.article.summary}".lower()
        assert all(entity.lower() in text for entity in story.entities)


def test_no_slot_is_left_open(world: World) -> None:
    assert not any(set("{}") & set(story.article.title + story.article.summary) for story in world.stories)


def test_all_topics_are_told_and_none_dominates(world: World) -> None:
    counts = Counter(story.topic for story in world.stories)
    assert len(counts) == len(world.topics)
    assert max(counts.values()) < 0.1 * len(world.stories)


def test_another_seed_tells_other_news() -> None:
    ours, others = (
        {story.article.title for story in build_world(SimulationSettings(seed=seed, articles=300)).stories}
        for seed in (1, 2)
    )
    assert len(ours & others) < 100
