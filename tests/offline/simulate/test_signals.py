from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline.simulate.readers import Interest
from offline.simulate.signals import SignalWriter
from offline.simulate.vocabulary import load_vocabulary
from offline.simulate.world import World

VOCABULARY = load_vocabulary()


def texts(world: World, gap: float, count: int = 400) -> list[tuple[int, str]]:
    """Pages and searches of readers of many topics: (topic, text)."""
    rng = Random(3)
    writer = SignalWriter(VOCABULARY, gap, rng)
    found = []
    for number in range(count):
        story = rng.choice(world.stories)
        topic = world.topics[story.topic]
        interest = Interest(story.topic, frozenset(topic.entities[:2]), 1.0, 0, 1)
        write = writer.page if number % 2 else writer.search
        found.append((story.topic, write(topic, interest, story)))
    return found


def news_share(world: World, gap: float) -> float:
    """Share of the signals' words that occur in the news of their topic."""
    news = [
        frozenset(
            word
            for position in range(len(shelf))
            for word in VOCABULARY.word_set(f"{shelf[position].article.title} {shelf[position].article.summary}")
        )
        for shelf in world.by_topic
    ]
    rows = [(topic, VOCABULARY.word_set(text)) for topic, text in texts(world, gap)]
    return sum(len(words & news[topic]) for topic, words in rows) / sum(len(words) for _, words in rows)


def test_the_wider_the_gap_the_fewer_words_are_shared_with_the_news(world: World) -> None:
    shares = [news_share(world, gap) for gap in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert shares == sorted(shares, reverse=True)
    assert min(wider - narrower for wider, narrower in pairwise(shares)) > 0.1


def test_without_a_gap_signals_are_headline_words(world: World) -> None:
    assert news_share(world, 0.0) == 1.0


def test_with_the_widest_gap_no_word_is_shared(world: World) -> None:
    assert news_share(world, 1.0) == 0.0


@pytest.mark.parametrize("gap", [0.0, 0.5, 1.0])
def test_signals_are_short_and_never_empty(world: World, gap: float) -> None:
    assert all(0 < len(text.strip()) <= 500 for _, text in texts(world, gap))


@settings(max_examples=15, deadline=None)
@given(gap=st.floats(0, 1), wider=st.floats(0, 1))
def test_everyday_draws_never_fall_as_the_gap_widens(gap: float, wider: float) -> None:
    low, high = sorted((gap, wider))

    def draws(width: float) -> list[int]:
        writer = SignalWriter(VOCABULARY, width, Random(11))
        return [writer.everyday_draws() for _ in range(50)]

    assert all(ours <= theirs for ours, theirs in zip(draws(low), draws(high), strict=True))
