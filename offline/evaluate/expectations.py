"""What held-out readers can be expected to click, by the clicks of training readers until the moment.

Two uses. The reward `expected_hit` chooses the best of N lists: the measure by which the lists of a warm start are
chosen (offline/training/expected_hit.py). And ranking everything alive by it is a row of the evaluation: no rival,
since it looks at every article for every reader instead of finding candidates in an index, but what these leave to be
had.
"""

from pathlib import Path

import msgspec
import numpy as np

from offline.evaluate.answers import Answer
from offline.evaluate.held_out import HeldOutReader
from offline.evaluate.policies import Step
from offline.evaluate.task import Task
from offline.training.click_model import Expected, expected_of_strangers
from offline.training.example_set import load_articles, load_split
from offline.training.expected_hit import ExpectedHit
from offline.training.loading import as_reader, training_news
from offline.training.material import make_news
from offline.training.news_index import TextVectors
from offline.training.proposals import TrainingReader
from schemas.article import Article
from schemas.errors import UsageError


class Expectations(msgspec.Struct, frozen=True):
    answers: list[Answer]  # all that is alive, what is clicked likeliest first
    reward: ExpectedHit


def learn_expectations(examples: Path, task: Task, texts: TextVectors, places: int, step: Step) -> Expectations:
    """For the readers that are judged; `places` is how many articles an answer ranks. Takes minutes for a large log."""
    rows = [row for row in load_split(examples, "training") if row.clicked and row.until_ms <= task.news.at_ms]
    if not rows:
        raise UsageError("expected_hit learns from training readers' clicks before the moment: prepare a longer log")
    shown = training_news(load_articles(examples), rows)
    pool = list(task.news.pool)
    articles = list({article.article_id: article for article in (*shown, *pool)}.values())
    known = make_news(articles, texts)
    news = msgspec.structs.replace(known, shown_until_ms=max(article.published_at for article in shown))
    strangers = [_stranger(reader) for reader in task.readers]
    expected = expected_of_strangers(
        strangers, [as_reader(row) for row in rows], news, places=_places(articles, pool), tell=step
    )
    reward = ExpectedHit(make_news(pool, texts))
    reward.know(strangers, expected)
    return Expectations(
        [_ranked(reader.user_id, row, pool, places) for reader, row in zip(task.readers, expected, strict=True)], reward
    )


def _stranger(reader: HeldOutReader) -> TrainingReader:
    """Nothing of what is clicked later."""
    return TrainingReader(user_id=reader.user_id, profile=reader.profile, clicked=())


def _places(articles: list[Article], pool: list[Article]) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    place = {article.article_id: at for at, article in enumerate(articles)}
    return np.array([place[article.article_id] for article in pool])


def _ranked(user_id: str, expected: Expected, pool: list[Article], places: int) -> Answer:
    best = np.argsort(-expected, kind="stable")[:places]
    return Answer(user_id=user_id, ranked=tuple(pool[place].article_id for place in best))
