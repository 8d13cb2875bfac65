"""The lists that a model is first shown: for each training reader the best of several proposals.

Proposals: a list of names of what the news is about (interest_names.py), chosen among those that readers of like
prompts are given (likely_names.py), and what the model itself samples. The best has the highest composite reward plus
weight times the clicks that it is expected to bring (click_model.py). Half of the articles, by a hash, choose; what the
readers were shown of the other half reports (`Chosen.recall`): a student cannot see the news of the day, so a list is
worth what it brings of other news than that which chose it, and older news helps to choose.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
import numpy as np

from offline.training.click_model import Expected, News, expected_clicks
from offline.training.interest_names import interest_names
from offline.training.likely_names import likely_names
from offline.training.news_index import PLACES
from offline.training.proposals import ANY_GAIN, TrainingReader, brought, fused_list, votes_of, worth_of
from offline.training.searched import SearchedNews, searched
from schemas.errors import UsageError
from schemas.prompt import BARE, render_prompt
from schemas.queries import parse_queries, signals_as_queries

Source = Literal["names", "samples", "teacher"]
Composite = Callable[
    [Sequence[TrainingReader], Sequence[str]], list[float]
]  # readers and their lists -> sum of rewards


class ChoiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How proposals are made and judged; chosen on training readers."""

    hit_weight: float = 15.0  # of the expected clicks, 0-1, beside the composite reward, in which each term reaches 1
    samples: int = 2  # lists that the model itself writes for each reader
    sample_temperature: float = 0.8
    signal_queries: int = 8  # as the stream keeps


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """One reader's list."""

    user_id: str
    prompt: str
    completion: str
    source: Source
    score: float = 0.0
    recall: float | None = None  # at 10, of the clicks on articles of the half that chose nothing; None: no such click
    signals_recall: float | None = None  # the same, of the reader's own signals as queries


def completion_of(queries: Sequence[str]) -> str:
    """A list as it follows the prompt; the trainer adds the end token."""
    return " " + "; ".join(queries)


def choose_lists(
    readers: Sequence[TrainingReader],
    news: News,
    composite: Composite,
    settings: ChoiceSettings,
    samples: Sequence[Sequence[str]] | None = None,
    *,
    most: int | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> list[Chosen]:
    """One list for each of the first `most` readers (default: all) that has a usable one; the others' clicks teach.

    `samples` are texts that the model wrote for each of the former.
    """
    if len(readers) < 2:
        raise UsageError("choosing lists needs the clicks of other readers: prepare examples of at least two readers")
    choosing, reporting = _halves(news)
    expected, told = expected_clicks(readers, news, most=most, places=choosing.places, tell=tell), readers[:most]
    rows = zip(_named(told, expected, choosing), samples or [()] * len(told), strict=True)
    lists = [_proposed(named, texts) for named, texts in rows]
    scores = _scores(told, [[queries for _, queries in proposals] for proposals in lists], composite)
    return [
        _reported(_best(reader, proposals, worth, clicks, choosing, settings), reader, reporting, settings)
        for reader, proposals, worth, clicks in zip(told, lists, scores, expected, strict=True)
        if proposals
    ]


def in_choosing_half(article_id: str) -> bool:
    """A hash decides."""
    return hashlib.blake2b(article_id.encode(), digest_size=1).digest()[0] % 2 == 0


def _halves(news: News) -> tuple[SearchedNews, SearchedNews]:
    """The half that chooses, and what was shown of the half that reports."""
    chooses = np.array([in_choosing_half(article.article_id) for article in news.articles])
    shown = np.array([article.published_at >= news.shown_from_ms for article in news.articles])
    return searched(news, np.flatnonzero(chooses)), searched(news, np.flatnonzero(~chooses & shown))


def _named(
    readers: Sequence[TrainingReader], expected: Sequence[Expected], half: SearchedNews
) -> list[tuple[str, ...]]:
    """For each reader the best list of the names of what the news is about, among those that can be told."""
    names = interest_names(half.texts, half.vectors, half.embed)
    if not names:
        return [() for _ in readers]
    votes = votes_of(half.embed(names) @ half.vectors.T, half.depths.hits)
    lists = [fused_list(votes, clicks, half.depths) for clicks in expected]
    likely = likely_names(readers, lists, len(names), half.embed)
    return [
        tuple(names[row[place]] for place in fused_list(votes[row], clicks, half.depths, ANY_GAIN))
        for row, clicks in zip(likely, expected, strict=True)
    ]


Proposal = tuple[Source, tuple[str, ...]]


def _proposed(named: tuple[str, ...], written: Sequence[str]) -> list[Proposal]:
    samples: list[Proposal] = [("samples", parse_queries(text)) for text in written]
    return [row for row in [("names", named), *samples] if row[1]]  # ties go to the first


def _signals(reader: TrainingReader, settings: ChoiceSettings) -> tuple[str, ...]:
    return signals_as_queries(reader.profile, limit=settings.signal_queries)


def _scores(
    readers: Sequence[TrainingReader], lists: Sequence[Sequence[Sequence[str]]], composite: Composite
) -> list[list[float]]:
    """The composite reward of every proposal, asked for in one call."""
    owners = [reader for reader, proposals in zip(readers, lists, strict=True) for _ in proposals]
    scores = iter(composite(owners, [completion_of(queries) for proposals in lists for queries in proposals]))
    return [[next(scores) for _ in proposals] for proposals in lists]


def _best(
    reader: TrainingReader,
    proposals: Sequence[Proposal],
    worth: Sequence[float],
    expected: Expected,
    half: SearchedNews,
    settings: ChoiceSettings,
) -> Chosen:
    fused = np.stack([half.votes(queries, reader).sum(axis=0) for _, queries in proposals])
    totals = np.array(worth) + settings.hit_weight * worth_of(fused, expected, half.depths)
    best = int(totals.argmax())
    source, queries = proposals[best]
    return Chosen(
        user_id=reader.user_id,
        prompt=render_prompt(reader.profile, BARE),
        completion=completion_of(queries),
        source=source,
        score=float(totals[best]),
    )


def _reported(chosen: Chosen, reader: TrainingReader, half: SearchedNews, settings: ChoiceSettings) -> Chosen:
    clicked = np.array([article in reader.clicked for article in half.ids], np.float64)
    if not clicked.any():
        return chosen

    def recall(queries: Sequence[str]) -> float:
        return float(brought(half.votes(queries, reader).sum(axis=0), clicked, PLACES))

    lists, signals = parse_queries(chosen.completion), _signals(reader, settings)
    return msgspec.structs.replace(chosen, recall=recall(lists), signals_recall=recall(signals))
