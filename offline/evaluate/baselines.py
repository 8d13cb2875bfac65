"""The rivals that write no queries with a model: popularity, recency, words, and vectors of the reader's history."""

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pyarrow as pa
from scipy.cluster.hierarchy import fcluster, linkage

from offline.evaluate.answers import Answer, WeightedQuery, of_lists
from offline.evaluate.held_out import HeldOutReader, popular
from offline.evaluate.policy_names import OWN_SIGNALS
from offline.evaluate.retrieval import ExactIndex, VectorCache, Vectors
from schemas.article import Article
from schemas.profile import UserProfile, latest_signals, seen_articles
from schemas.queries import distinct_queries, signals_as_queries

POPULAR_MS = 2 * 86_400_000  # popularity counts the clicks of the last two days
RECENT_SIGNALS = 10  # that BM25 reads
SIGNAL_QUERIES = (5, 8)  # as many as a list may have, and as many as the stream stores
WARD_DISTANCE = 1.0  # between clusters of unit vectors; about a cosine of 0.5 between two single signals
MEDOIDS = 5  # as many queries as a list may have
HALF_LIFE_MS = 2 * 86_400_000  # of a signal's share in its cluster's importance

Baseline = Callable[[Sequence[HeldOutReader]], list[Answer]]


class News(msgspec.Struct, frozen=True):
    """What can be found at the moment, and what was clicked before it."""

    at_ms: int
    pool: Sequence[Article]
    cache: VectorCache
    index: ExactIndex
    clicks: pa.Table  # user_id, article_id, occurred_at; nothing after the moment


def baselines(news: News, places: int) -> dict[str, Baseline]:
    """By name; each gives at most `places` articles or its queries."""
    found: dict[str, Baseline] = {
        "popularity": lambda readers: _same(readers, _popular(news), places),
        "recency": lambda readers: _same(readers, _recent(news), places),
        "BM25 on recent signals": lambda readers: bm25(news, readers, places),
        "mean history embedding": lambda readers: mean_history(news, readers, places),
        "history medoids (Ward)": lambda readers: medoids(news, readers),
    }
    return found | own_signals() | {"latest signal": _latest}


def own_signals() -> dict[str, Baseline]:
    """By name: so many of the reader's latest signals as queries."""
    return {f"{OWN_SIGNALS} ({n})": _signals(n) for n in SIGNAL_QUERIES}


def bm25(news: News, readers: Sequence[HeldOutReader], places: int) -> list[Answer]:
    """Okapi BM25 (bm25s, Lucene's variant) of titles and summaries for the words of the latest signals."""
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # its import sets DEBUG
    texts = [f"{article.title} {article.summary}" for article in news.pool]
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
    asked = [" ".join(_texts(reader.profile)[:RECENT_SIGNALS]) for reader in readers]
    tokens = bm25s.tokenize(asked, stopwords="en", return_ids=False, show_progress=False)
    answers = []
    for reader, words in zip(readers, tokens, strict=True):
        depth = min(len(news.pool), places + len(seen_articles(reader.profile)))
        rows, scores = index.retrieve([words], k=depth, show_progress=False)
        ids = [news.pool[row].article_id for row, score in zip(rows[0], scores[0], strict=True) if score > 0]
        answers.append(_ranked(reader, ids, places))
    return answers


def mean_history(news: News, readers: Sequence[HeldOutReader], places: int) -> list[Answer]:
    """One search with the mean of the signals' unit vectors."""
    _embed(news, readers)
    means = np.stack([news.cache.of(_texts(reader.profile)).mean(axis=0) for reader in readers])
    depth = min(len(news.pool), places + max(len(seen_articles(reader.profile)) for reader in readers))
    hits = news.index.search(means.astype(np.float32), depth)
    return [_ranked(reader, [hit.article_id for hit in row], places) for reader, row in zip(readers, hits, strict=True)]


def medoids(news: News, readers: Sequence[HeldOutReader]) -> list[Answer]:
    """PinnerSage (Pal et al., KDD 2020): Ward's clusters of the history, each by its medoid, the most important first.

    Importance is the sum of the members' shares, which halve in HALF_LIFE_MS.
    """
    _embed(news, readers)
    return [Answer(user_id=reader.user_id, queries=_medoids(news, reader.profile)) for reader in readers]


def _medoids(news: News, profile: UserProfile) -> tuple[WeightedQuery, ...]:
    signals = [signal for _, signal in latest_signals(profile)]
    vectors = news.cache.of([signal.text for signal in signals])
    shares = np.array([0.5 ** ((news.at_ms - signal.occurred_at) / HALF_LIFE_MS) for signal in signals])
    labels = ward_clusters(vectors)
    rows = []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        nearest = int((vectors[places] @ vectors[places].sum(axis=0)).argmax())
        rows.append((float(shares[places].sum()), signals[places[nearest]].text))
    rows.sort(key=lambda row: -row[0])
    return tuple(WeightedQuery(text, importance / rows[0][0]) for importance, text in rows[:MEDOIDS])


def ward_clusters(vectors: Vectors) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """A label for each row."""
    if len(vectors) < 2:
        return np.ones(len(vectors), dtype=np.int64)
    tree = linkage(vectors.astype(np.float64), method="ward")
    labels: np.ndarray[tuple[int], np.dtype[np.int64]] = fcluster(tree, WARD_DISTANCE, criterion="distance")
    return labels


def _signals(limit: int) -> Baseline:
    return lambda readers: of_lists({row.user_id: signals_as_queries(row.profile, limit=limit) for row in readers})


def _latest(readers: Sequence[HeldOutReader]) -> list[Answer]:
    return of_lists({row.user_id: distinct_queries(_texts(row.profile), limit=1) for row in readers})


def _popular(news: News) -> list[str]:
    pool = {article.article_id for article in news.pool}
    rows = zip(news.clicks["article_id"].to_pylist(), news.clicks["occurred_at"].to_pylist(), strict=True)
    return popular(article for article, at_ms in rows if at_ms > news.at_ms - POPULAR_MS and article in pool)


def _recent(news: News) -> list[str]:
    ordered = sorted(news.pool, key=lambda article: (-article.published_at, article.article_id))
    return [article.article_id for article in ordered]


def _same(readers: Sequence[HeldOutReader], ids: Sequence[str], places: int) -> list[Answer]:
    return [_ranked(reader, ids, places) for reader in readers]


def _ranked(reader: HeldOutReader, ids: Sequence[str], places: int) -> Answer:
    seen = seen_articles(reader.profile)
    kept: list[str] = []
    for article in ids:
        if len(kept) == places:
            break
        if article not in seen:
            kept.append(article)
    return Answer(user_id=reader.user_id, ranked=tuple(kept))


def _texts(profile: UserProfile) -> list[str]:
    """Newest first."""
    return [signal.text for _, signal in latest_signals(profile)]


def _embed(news: News, readers: Sequence[HeldOutReader]) -> None:
    asyncio.run(news.cache.add(text for reader in readers for text in _texts(reader.profile)))
