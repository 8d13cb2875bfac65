from collections import Counter
from random import Random

from offline.simulate import Delivery, Impression
from offline.simulate.impressions import FRESH_MS, IDLE, ON_TOPIC, WANTED, Kiosk, appeal
from offline.simulate.readers import Interest, Reader
from offline.simulate.world import World
from tests.offline.simulate.conftest import SMALL


def test_each_click_was_shown_and_happens_once(deliveries: list[Delivery], impressions: list[Impression]) -> None:
    told = Counter((row.user_id, article_id) for row in impressions for article_id in row.clicked)
    clicks = Counter(
        (row.event.user_id, row.event.article_id) for row in deliveries if row.event.kind == "click" and not row.repeat
    )
    assert told == clicks
    assert all(set(row.clicked) <= set(row.article_ids) for row in impressions)


def test_a_slate_has_distinct_articles(impressions: list[Impression]) -> None:
    assert all(len(set(row.article_ids)) == len(row.article_ids) <= SMALL.slate_size for row in impressions)


def test_only_fresh_news_is_shown(world: World, impressions: list[Impression]) -> None:
    published = {story.article.article_id: story.article.published_at for story in world.stories}
    for row in impressions:
        assert all(0 <= row.shown_at - published[article_id] <= FRESH_MS for article_id in row.article_ids)


def test_the_top_is_clicked_more_than_the_bottom(impressions: list[Impression]) -> None:
    places = Counter(row.article_ids.index(article_id) for row in impressions for article_id in row.clicked)
    assert sum(places[place] for place in range(3)) > 1.5 * sum(places[place] for place in range(5, 8))


def test_an_interest_draws_by_topic_and_entity(world: World) -> None:
    story = min(world.stories, key=lambda row: row.appeal)
    wanted = Interest(story.topic, story.entities, 1.0, 0, 1)
    near = Interest(story.topic, frozenset({"nobody"}), 1.0, 0, 1)
    other = Interest((story.topic + 1) % len(world.topics), frozenset(), 1.0, 0, 1)
    assert appeal(story, [other, wanted, near]) == WANTED
    assert appeal(story, [near]) == ON_TOPIC
    assert IDLE <= appeal(story, [other]) < ON_TOPIC


def test_what_was_clicked_is_not_shown_again(world: World) -> None:
    kiosk = Kiosk(world, SMALL, Random(1))
    interest = Interest(0, frozenset(), 1.0, SMALL.start_ms, SMALL.end_ms)
    reader = Reader("reader-1", (interest,), "balanced", "office", False, 9)
    for story in kiosk.slate(reader, [interest], SMALL.end_ms):
        reader.clicked.append(story.article.article_id)
    again = [story.article.article_id for _ in range(30) for story in kiosk.slate(reader, [interest], SMALL.end_ms)]
    assert again
    assert not set(again) & set(reader.clicked)
