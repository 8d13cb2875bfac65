"""The reward `expected_hit`, beyond the paper: the clicks that a list can be expected to bring.

A reader clicks a handful of articles later, of which a list finds none or one: `hit` is mostly 0, and by chance 1. What
is to be expected of the reader by the clicks of OTHER readers (click_model.py) differs a little for every list, so that
a group of eight tells which of them are better. Lists of the warm start are chosen by it too (warm_start.py), and as
there, no reader's own later clicks have a say.
"""

from collections.abc import Callable, Sequence
from typing import Any

from offline.training.click_model import Expected, News, expected_clicks
from offline.training.material import prompts_of
from offline.training.proposals import TrainingReader, worth_of
from offline.training.rewards import EXPECTED_HIT, Completion, Values, queries_of
from offline.training.searched import searched


class ExpectedHit:
    """Of the clicks to be expected among the first ten and fifty places, as the list is served, the share of the most
    that can stand there, 0-1; abstains for prompts of readers of whom it has not learnt."""

    __name__ = EXPECTED_HIT

    def __init__(self, news: News) -> None:
        self._news = news
        self._searched = searched(news)
        self._known: dict[str, tuple[TrainingReader, Expected]] = {}  # by prompt

    def learn(self, readers: Sequence[TrainingReader], most: int, tell: Callable[[str], None]) -> None:
        """From the clicks of all `readers` what each of the first `most` can be expected to click: takes minutes."""
        self.know(readers[:most], expected_clicks(readers, self._news, most=most, tell=tell))

    def know(self, readers: Sequence[TrainingReader], expected: Sequence[Expected]) -> None:
        """What each of these can be expected to click, of all the news."""
        self._known = dict(zip(prompts_of(readers), zip(readers, expected, strict=True), strict=True))

    def __call__(self, prompts: Sequence[str], completions: Sequence[Completion], **columns: Any) -> Values:
        lists = [queries_of(completion) for completion in completions]
        self._news.embed(list(dict.fromkeys(query for queries in lists for query in queries)))  # in one call
        return [self._value(*row) for row in zip(prompts, lists, strict=True)]

    def _value(self, prompt: str, queries: Sequence[str]) -> float | None:
        if prompt not in self._known:
            return None
        if not queries:
            return 0.0
        reader, expected = self._known[prompt]
        votes = self._searched.votes(queries, reader).sum(axis=0)
        return float(worth_of(votes, expected, self._searched.depths))
