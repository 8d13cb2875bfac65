from itertools import chain

import pytest

from offline.simulate.vocabulary import CategoryWords, TopicWords, load_vocabulary, singular

VOCABULARY = load_vocabulary()
TOPICS = [(category, topic) for category in VOCABULARY.categories for topic in category.topics]


def news_words(category: CategoryWords, topic: TopicWords) -> frozenset[str]:
    frames = [*chain.from_iterable(topic.facts), *category.contexts, *VOCABULARY.attributions]
    plain = [frame.format(e=" ", f=" ", t=" ", p=" ", n=" ", day=" ") for frame in frames]
    texts = [*plain, *topic.entities, *topic.things, *VOCABULARY.places, *VOCABULARY.days]
    return VOCABULARY.word_set(" . ".join(texts))


def test_the_world_is_wide() -> None:
    assert len(TOPICS) >= 40
    assert len(VOCABULARY.categories) >= 12
    assert len({topic.id for _, topic in TOPICS}) == len(TOPICS)


@pytest.mark.parametrize(("category", "topic"), TOPICS, ids=[topic.id for _, topic in TOPICS])
def test_everyday_phrases_share_no_word_with_their_news(category: CategoryWords, topic: TopicWords) -> None:
    frames = " ".join((*VOCABULARY.page_frames, *VOCABULARY.search_frames)).replace("{x}", " ")
    everyday = VOCABULARY.word_set(" . ".join((*topic.everyday, frames)))
    assert everyday & news_words(category, topic) == frozenset()


@pytest.mark.parametrize("topic", [topic for _, topic in TOPICS], ids=lambda topic: topic.id)
def test_every_fact_has_several_phrasings(topic: TopicWords) -> None:
    assert len(topic.facts) >= 4
    assert all(len(set(phrasings)) >= 3 for phrasings in topic.facts)


def test_entities_are_shared_by_topics() -> None:
    holders: dict[str, int] = {}
    for _, topic in TOPICS:
        for entity in topic.entities:
            holders[entity] = holders.get(entity, 0) + 1
    assert sum(count > 1 for count in holders.values()) >= 15


@pytest.mark.parametrize("word", ["jaguar", "apple", "delta", "mercury", "orion"])
def test_ambiguous_words_mean_something_in_several_categories(word: str) -> None:
    categories = {category.name for category, topic in TOPICS if word in news_words(category, topic)}
    assert len(categories) >= 3


def test_words_are_compared_without_plural_and_possessive() -> None:
    assert [singular(word) for word in ("Jaguars", "mayor's", "teachers’", "glass", "bus")] == [
        "jaguar",
        "mayor",
        "teacher",
        "glass",
        "bus",
    ]
