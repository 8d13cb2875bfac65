"""What a run learns from: readers, the news that may be found, the rewards; and its measure on readers held out."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import msgspec

from offline.evaluate.metrics import recall_at_k
from offline.evaluate.retrieval import ExactIndex, Finder, Query, VectorCache
from offline.training.click_model import News
from offline.training.gates import HELD_OUT, Measure
from offline.training.greedy import ListWriter
from offline.training.news_index import PLACES, TextVectors
from offline.training.proposals import TrainingReader, signal_texts
from offline.training.rewards import LogMetric, Reward, composite
from offline.training.warm_start import Composite
from schemas.article import Article, embedded_text
from schemas.clients.models import Embedder
from schemas.config import Api
from schemas.errors import UsageError
from schemas.profile import seen_articles
from schemas.prompt import BARE, render_prompt
from schemas.queries import parse_queries, signals_as_queries

SIGNALS = "signals_recall_at_10"  # a score: the reader's own signals as queries, of the same readers
SIGNAL_QUERIES = 8  # what the stream keeps of them (schemas/config.py, Interests)

Rank = Callable[[Sequence[TrainingReader], Sequence[Sequence[str]]], list[list[str]]]  # readers, lists -> article ids


class Material(msgspec.Struct, frozen=True, kw_only=True):
    """The input of every stage."""

    training: Sequence[TrainingReader]
    held_out: Sequence[TrainingReader]  # nothing is trained on these
    news: News
    rank: Rank
    rewards: Mapping[str, Reward]
    data_sha256: str
    judge: str = ""  # the model behind an LLM judge; "" for the embedding judges


def checked_material(material: Material) -> Material:
    """`material`, or UsageError saying why nothing can be learnt from it."""
    readers = len({row.user_id for row in material.training})
    if readers < 2:
        raise UsageError(
            f"the examples hold {readers} training reader(s) with clicks: lists are chosen by what other readers "
            "clicked, so prepare a log of more readers, or raise --readers"
        )
    if not any(reader.clicked for reader in material.training):
        raise UsageError("no training reader clicked anything after the moment of the examples: prepare a longer log")
    if not any(reader.clicked for reader in material.held_out):
        raise UsageError("no held-out reader clicked anything: nothing would guard the run; prepare more readers")
    if shared := {row.user_id for row in material.training} & {row.user_id for row in material.held_out}:
        raise UsageError(f"{len(shared)} readers are both trained on and held out, {min(shared)} among them")
    return material


def make_news(articles: Sequence[Article], texts: TextVectors, *, alive: int = 0, shown_from_ms: int = 0) -> News:
    """With the vectors that the rewards look at too."""
    return News(articles, texts.of([embedded_text(article) for article in articles]), texts.of, alive, shown_from_ms)


def make_rank(articles: Sequence[Article], embedder: Embedder, api: Api) -> Rank:
    """Exact search in `articles` with the API's own merging of lists, by their student's weight alone."""
    cache = VectorCache(embedder)
    texts = [embedded_text(article) for article in articles]
    asyncio.run(cache.add(texts))
    finder = Finder(ExactIndex(articles, cache.of(texts)), cache, depth=max(PLACES, api.articles_per_query))

    def rank(readers: Sequence[TrainingReader], lists: Sequence[Sequence[str]]) -> list[list[str]]:
        asyncio.run(finder.add(query for queries in lists for query in queries))
        return [_merged(finder, reader, queries, api) for reader, queries in zip(readers, lists, strict=True)]

    return rank


def _merged(finder: Finder, reader: TrainingReader, queries: Sequence[str], api: Api) -> list[str]:
    return finder.candidates(
        [Query(text, "student") for text in queries],
        k=PLACES,
        articles_per_query=max(PLACES, api.articles_per_query),
        query_quota=api.query_quota if len(queries) > 1 else 1.0,
        seen=seen_articles(reader.profile),
    )


def prompts_of(readers: Sequence[TrainingReader]) -> list[str]:
    """The bare prompt is what trained models read."""
    return [render_prompt(reader.profile, BARE) for reader in readers]


def columns_of(readers: Sequence[TrainingReader]) -> dict[str, list[Any]]:
    """What every reward is told beside the completions, one value for each reader."""
    return {
        "prompt": prompts_of(readers),
        "user_id": [reader.user_id for reader in readers],
        "signals": [signal_texts(reader.profile) for reader in readers],
        "clicked": [list(reader.clicked) for reader in readers],
    }


def composite_of(
    rewards: Mapping[str, Reward], weights: Mapping[str, float], log: LogMetric | None = None
) -> Composite:
    """The weighted sum of the rewards; one that abstains counts as zero. `log` is told their parts."""

    def score(readers: Sequence[TrainingReader], completions: Sequence[str]) -> list[float]:
        columns = columns_of(readers)
        prompts = columns.pop("prompt")
        return composite(rewards, completions, weights, prompts=prompts, log_metric=log, **columns)

    return score


def held_out_measure(material: Material, tokenizer: Any, max_new_tokens: int) -> Measure:
    """Recall@10 of greedy lists on the held-out readers: what no reward looks at."""
    readers = [reader for reader in material.held_out if reader.clicked]

    def measure(model: Any) -> dict[str, float]:
        texts = ListWriter(model, tokenizer, max_new_tokens=max_new_tokens).write(prompts_of(readers))
        return {HELD_OUT: mean_recall(material.rank, readers, [parse_queries(text) for text in texts])}

    return measure


def signals_recall(material: Material, limit: int = SIGNAL_QUERIES) -> float:
    """Recall@10 of the held-out readers' own signals as queries: the rival that a model must beat."""
    readers = [reader for reader in material.held_out if reader.clicked]
    lists = [signals_as_queries(reader.profile, limit=limit) for reader in readers]
    return mean_recall(material.rank, readers, lists)


def mean_recall(rank: Rank, readers: Sequence[TrainingReader], lists: Sequence[Sequence[str]]) -> float:
    """Mean Recall@10 of `lists`, one for each reader; all readers must have clicked something."""
    ranked = rank(readers, lists)
    return fmean(recall_at_k(ids, reader.clicked, PLACES) for ids, reader in zip(ranked, readers, strict=True))
