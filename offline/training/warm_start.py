"""The lists that a model is first shown: for each training reader the best of several proposals.

Proposals: the cleaned signals, phrases of them, phrases of articles that readers with like signals clicked, and what
the model itself samples. The best has the highest composite reward plus weight times the hits on clicks: those of
readers with like signals and half of the reader's own. The other half only reports (`Chosen.held_apart`).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np

from offline.training.proposals import (
    TrainingReader,
    Vectors,
    chosen_half,
    covering_list,
    found_share,
    nearest_readers,
    phrases,
    signal_texts,
    wanted_articles,
)
from schemas.errors import UsageError
from schemas.prompt import BARE, render_prompt
from schemas.queries import parse_queries, signals_as_queries

Source = Literal["signals", "phrases", "neighbours", "samples", "teacher"]
Embed = Callable[[Sequence[str]], Vectors]  # texts -> [n, d], unit length
Search = Callable[[Sequence[str]], list[list[str]]]  # queries -> ids of the ten nearest articles of each
Composite = Callable[
    [Sequence[TrainingReader], Sequence[str]], list[float]
]  # readers and their lists -> sum of rewards


class ChoiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How proposals are made and judged; chosen on training readers."""

    like_readers: int = 20
    own_weight: float = 1.0  # of the reader's own half beside each like reader's clicks
    hit_weight: float = 2.0  # beside the composite reward, in which each term reaches 1
    phrase_signals: int = 8  # latest signals that phrases are taken from
    neighbour_titles: int = 20
    samples: int = 2  # lists that the model itself writes for each reader
    sample_temperature: float = 0.8
    signal_queries: int = 5


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """One reader's list."""

    user_id: str
    prompt: str
    completion: str
    source: Source
    score: float = 0.0
    held_apart: float = 0.0  # share of the half that chose nothing which the list finds
    signals_held_apart: float = 0.0  # the same, of the reader's own signals as queries


class Market(msgspec.Struct, frozen=True):
    """What proposals are judged by."""

    embed: Embed
    search: Search
    titles: Mapping[str, str]  # of articles by id


def completion_of(queries: Sequence[str]) -> str:
    """A list as it follows the prompt; the trainer adds the end token."""
    return " " + "; ".join(queries)


def choose_lists(
    readers: Sequence[TrainingReader],
    market: Market,
    composite: Composite,
    settings: ChoiceSettings,
    samples: Sequence[Sequence[str]] | None = None,
) -> list[Chosen]:
    """One list for each reader that has a usable one; `samples` are texts that the model wrote for each of them."""
    if len(readers) < 2:
        raise UsageError("choosing lists needs the clicks of other readers: prepare examples of at least two readers")
    halves = [chosen_half(reader.user_id, reader.clicked) for reader in readers]
    wanted, titles = _wanted(readers, [own for own, _ in halves], market, settings)
    pools = [_pool(reader, near, settings) for reader, near in zip(readers, titles, strict=True)]
    written = [[parse_queries(text) for text in texts] for texts in samples or [()] * len(readers)]
    finds = _finds(readers, pools, written, market.search, settings)
    lists = [
        _proposed(reader, pool, texts, finds, want, settings)
        for reader, pool, texts, want in zip(readers, pools, written, wanted, strict=True)
    ]
    scores = _scores(readers, lists, composite)
    rows = zip(readers, lists, scores, wanted, halves, strict=True)
    return [
        _best(reader, proposals, worth, finds, want, apart, settings)
        for reader, proposals, worth, want, (_, apart) in rows
        if proposals
    ]


Proposal = tuple[Source, tuple[str, ...]]


def _wanted(
    readers: Sequence[TrainingReader], own: Sequence[list[str]], market: Market, settings: ChoiceSettings
) -> tuple[list[dict[str, float]], list[list[str]]]:
    """What each reader's list should find, and the headlines that readers with like signals clicked."""
    near = nearest_readers(_reader_vectors(readers, market.embed), settings.like_readers)
    wanted, titles = list[dict[str, float]](), list[list[str]]()
    for place in range(len(readers)):
        like = [own[other] for other in near[place]]
        wanted.append(wanted_articles(own[place], like, settings.own_weight))
        articles = dict.fromkeys(article for clicks in like for article in clicks)
        titles.append([market.titles[a] for a in articles if a in market.titles][: settings.neighbour_titles])
    return wanted, titles


def _reader_vectors(readers: Sequence[TrainingReader], embed: Embed) -> Vectors:
    texts = list(dict.fromkeys(text for reader in readers for text in signal_texts(reader.profile)))
    place, vectors = {text: at for at, text in enumerate(texts)}, embed(texts)
    means = np.stack([vectors[[place[text] for text in signal_texts(reader.profile)]].mean(0) for reader in readers])
    return np.asarray(means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9), np.float32)


class _Pool(msgspec.Struct, frozen=True):
    own: list[str]  # phrases of the reader's signals
    neighbours: list[str]  # phrases of like readers' clicks


def _pool(reader: TrainingReader, titles: Sequence[str], settings: ChoiceSettings) -> _Pool:
    latest = signal_texts(reader.profile)[: settings.phrase_signals]
    own = dict.fromkeys(query for text in latest for query in (*parse_queries(text), *phrases(text)))
    return _Pool(list(own), list(dict.fromkeys(query for title in titles for query in phrases(title))))


def _finds(
    readers: Sequence[TrainingReader],
    pools: Sequence[_Pool],
    written: Sequence[Sequence[tuple[str, ...]]],
    search: Search,
    settings: ChoiceSettings,
) -> dict[str, Collection[str]]:
    """What every candidate finds; each text is searched for once."""
    texts = dict.fromkeys(query for pool in pools for query in (*pool.own, *pool.neighbours))
    texts |= dict.fromkeys(query for lists in written for queries in lists for query in queries)
    texts |= dict.fromkeys(query for reader in readers for query in _signals(reader, settings))
    queries = list(texts)
    return dict(zip(queries, map(frozenset, search(queries)), strict=True))


def _signals(reader: TrainingReader, settings: ChoiceSettings) -> tuple[str, ...]:
    return signals_as_queries(reader.profile, limit=settings.signal_queries)


def _proposed(
    reader: TrainingReader,
    pool: _Pool,
    written: Sequence[tuple[str, ...]],
    finds: Mapping[str, Collection[str]],
    wanted: Mapping[str, float],
    settings: ChoiceSettings,
) -> list[Proposal]:
    proposals: list[Proposal] = [
        ("signals", _signals(reader, settings)),
        ("phrases", covering_list(pool.own, finds, wanted)),
        ("neighbours", covering_list([*pool.own, *pool.neighbours], finds, wanted)),
        *(("samples", queries) for queries in written),
    ]
    return [(source, queries) for source, queries in proposals if queries]


def _scores(
    readers: Sequence[TrainingReader], lists: Sequence[Sequence[Proposal]], composite: Composite
) -> list[list[float]]:
    """The composite reward of every proposal, asked for in one call."""
    owners = [reader for reader, proposals in zip(readers, lists, strict=True) for _ in proposals]
    scores = iter(composite(owners, [completion_of(queries) for proposals in lists for _, queries in proposals]))
    return [[next(scores) for _ in proposals] for proposals in lists]


def _best(
    reader: TrainingReader,
    proposals: Sequence[Proposal],
    worth: Sequence[float],
    finds: Mapping[str, Collection[str]],
    wanted: Mapping[str, float],
    apart: Sequence[str],
    settings: ChoiceSettings,
) -> Chosen:
    hits = [found_share(queries, finds, wanted) for _, queries in proposals]
    totals = [value + settings.hit_weight * hit for value, hit in zip(worth, hits, strict=True)]
    best = int(np.argmax(totals))
    source, queries = proposals[best]
    return Chosen(
        user_id=reader.user_id,
        prompt=render_prompt(reader.profile, BARE),
        completion=completion_of(queries),
        source=source,
        score=totals[best],
        held_apart=_recall(queries, finds, apart),
        signals_held_apart=_recall(_signals(reader, settings), finds, apart),
    )


def _recall(queries: Sequence[str], finds: Mapping[str, Collection[str]], articles: Sequence[str]) -> float:
    return found_share(queries, finds, {article: 1 / len(articles) for article in articles})
