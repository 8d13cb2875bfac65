import msgspec
import numpy as np

from offline.training.click_model import expected_clicks
from offline.training.material import Material, make_news
from offline.training.news_index import TextVectors
from offline.training.proposals import TrainingReader
from schemas.article import Article
from schemas.clients.memory_models import MemoryEmbedder
from schemas.profile import Signal, UserProfile
from tests.offline.training import world


def test_what_readers_of_a_topic_click_is_expected_of_the_next_one(material: Material) -> None:
    expected = expected_clicks(material.training, material.news)
    topics = np.array([article.article_id.split("-")[0] for article in material.news.articles])
    for reader, clicks in zip(material.training, expected, strict=True):
        assert clicks.shape == (len(topics),)
        assert ((clicks >= 0) & (clicks <= 1)).all()
        own = reader.profile.click[0].text.split()[0]
        assert clicks[topics == own].mean() > 2 * clicks[topics != own].mean()


def test_pages_in_other_words_are_understood_by_the_clicks_of_others() -> None:
    """Readers of gauges click storms, readers of boards click chess; no word is shared."""
    news = make_news(world.articles(), TextVectors(MemoryEmbedder()))
    pages = {"storm": "tire pressure gauge", "chess": "walnut board polish"}

    def reader(number: int) -> TrainingReader:
        topic = list(pages)[number // 2 % 2]
        page = Signal(1, f"p{number}", pages[topic])
        clicked = tuple(f"{topic}-{(number + place) % 12}" for place in range(4))
        return TrainingReader(
            user_id=f"r{number:02d}", profile=UserProfile(f"r{number}", page=(page,)), clicked=clicked
        )

    readers = [reader(number) for number in range(40)]
    topics = np.array([article.article_id.split("-")[0] for article in news.articles])
    for who, clicks in zip(readers, expected_clicks(readers, news), strict=True):
        wanted = who.clicked[0].split("-")[0]
        other = next(topic for topic in pages if topic != wanted)
        assert clicks[topics == wanted].mean() > 1.5 * clicks[topics == other].mean()


def test_nobody_is_expected_to_click_again_and_no_click_at_all_is_no_error(material: Material) -> None:
    seen = Signal(9, "s", "Storm coast wind report 1", article_id="storm-1")
    readers = [
        TrainingReader(user_id=f"r{n}", profile=UserProfile(f"r{n}", click=(seen,)), clicked=()) for n in range(3)
    ]
    for clicks in expected_clicks(readers, material.news):
        assert clicks[[article.article_id for article in material.news.articles].index("storm-1")] == 0.0


def test_the_same_readers_give_the_same_expectation(material: Material) -> None:
    first, second = (expected_clicks(material.training, material.news) for _ in range(2))
    assert all((one == other).all() for one, other in zip(first, second, strict=True))


def test_a_reader_of_several_moments_is_in_one_half(material: Material) -> None:
    """Clicks told at another moment of the same reader do not choose either."""
    first, *others = material.training
    moved = msgspec.structs.replace(first, clicked=("lithium-0", "lithium-1"))
    twice, once = (
        expected_clicks([first, moved, *others], material.news),
        expected_clicks([first, *others], material.news),
    )
    assert (twice[0] == twice[1]).all()
    assert (twice[0] == once[0]).all()


def test_an_article_is_enough_for_a_model() -> None:
    only: list[Article] = world.articles()[:1]
    news = make_news(only, TextVectors(MemoryEmbedder()))
    assert [row.shape for row in expected_clicks(world.readers(2), news)] == [(1,), (1,)]
