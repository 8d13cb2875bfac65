"""What a reader's pages and searches say: how far their words are from the news of the same interest.

Two draws, each "everyday" with probability `gap`: none gives words of a headline (as a page, the headline itself), both
give an everyday phrase, which has no word of its topic's news; one of each gives an everyday phrase beside a news word.
So the expected share of news words falls from 1 to 0 as the gap widens.
"""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

from offline.simulate.readers import Interest
from offline.simulate.vocabulary import Vocabulary
from offline.simulate.world import Story, Topic

SEARCH_WORDS = (2, 2, 3)
Choice = TypeVar("Choice")


class SignalWriter:
    """Writes the texts of pages and searches."""

    def __init__(self, vocabulary: Vocabulary, gap: float, rng: Random) -> None:
        self._vocabulary, self._gap, self._rng = vocabulary, gap, rng

    def page(self, topic: Topic, interest: Interest, story: Story) -> str:
        """Title of a page that the reader visits for this interest."""
        everyday = self.everyday_draws()
        if everyday == 0:
            return story.article.title
        phrase = self._pick(topic.everyday)
        title = self._pick(self._vocabulary.page_frames).replace("{x}", phrase[:1].upper() + phrase[1:])
        return title if everyday == 2 else f"{title} - {self._news_word(interest, story)}"

    def search(self, topic: Topic, interest: Interest, story: Story) -> str:
        """What the reader types for this interest."""
        everyday = self.everyday_draws()
        if everyday == 0:
            return self._headline_words(story)
        query = self._pick(self._vocabulary.search_frames).replace("{x}", self._pick(topic.everyday))
        return query if everyday == 2 else f"{query} {self._news_word(interest, story).lower()}"

    def everyday_draws(self) -> int:
        """0-2: how many of the two draws say "everyday"."""
        return (self._rng.random() < self._gap) + (self._rng.random() < self._gap)

    def _headline_words(self, story: Story) -> str:
        if not story.words:
            return story.article.title
        count = min(len(story.words), self._pick(SEARCH_WORDS))
        chosen = sorted(self._rng.sample(range(len(story.words)), count))
        return " ".join(story.words[position] for position in chosen).lower()

    def _news_word(self, interest: Interest, story: Story) -> str:
        shared = sorted(interest.entities & story.entities)
        return self._pick(shared) if shared else self._pick(story.words or (story.article.title,))

    def _pick(self, choices: Sequence[Choice]) -> Choice:
        return choices[int(self._rng.random() * len(choices))]
