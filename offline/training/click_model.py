"""How likely a reader is to click each article, learnt from the clicks of OTHER training readers.

Lists are chosen by it, since the few clicks of one reader say little about what that reader wants, and lists chosen on
the very clicks that they are scored on look three times better than they are (docs: quality, point 2). Cross-fitting:
readers are dealt into two halves, each judged by the model of the other half, so that no reader's own later clicks
choose that reader's list.

The model is gradient boosting (scikit-learn) over likeness of signals and article: cosines of vectors, TF-IDF of words,
and latent semantic analysis (Deerwester et al., JASIS 1990) with readers as its documents. The last is what no likeness
of texts knows: words that the same readers use come near each other, those of a page about something else and those of
the news that its readers click.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from offline.training.news_index import Vectors
from offline.training.proposals import TrainingReader
from schemas.article import Article, embedded_text
from schemas.profile import Signal, latest_signals

HALF_LIFE_MS: Final = 4 * 86_400_000  # of a signal's say
LATENT: Final = (60, 250)  # dimensions: the first finds what else a reader may like, the second tells names apart
LEAST_USED: Final = 20  # readers for each dimension: with as many dimensions as readers nothing comes near
LEAST_USERS: Final = 5  # readers who use a word; fewer where there are few readers
MOST_PAIRS: Final = 1_000_000  # of reader and article that one model is fitted to; the rest of the unclicked is dropped
_WORDS: Final = r"(?u)\b\w[\w'’-]+\b"

Matrix = NDArray[np.float32]
Places = NDArray[np.int64]  # of articles in the news
Expected = NDArray[np.float64]  # of each article a click's probability, 0 for what the reader has clicked


class News(msgspec.Struct, frozen=True):
    """Articles that may be clicked, with their vectors [articles, d] of unit length."""

    articles: Sequence[Article]
    vectors: Vectors
    embed: Callable[[Sequence[str]], Vectors]
    alive: int = 0  # articles that can be found at one moment; 0: all of them
    shown_from_ms: int = 0  # older articles were shown to no reader any more: lists are chosen by them, not judged
    shown_until_ms: float = math.inf  # newer ones were not shown yet: no click on them can be learnt from


def expected_clicks(
    readers: Sequence[TrainingReader],
    news: News,
    *,
    most: int | None = None,
    places: Places | None = None,
    seed: int = 7,
    tell: Callable[[str], None] = lambda sentence: None,
) -> list[Expected]:
    """Of the articles at `places` (default: all) for each of the first `most` rows (default: all), by the model of the
    half that the row's reader is not in; at least two rows. All rows teach.

    A reader who is seen at several moments is in one half with all of them.
    """
    _embed_signals(readers, news)
    judged = np.arange(len(news.articles)) if places is None else places
    halves = halves_of(readers)
    dealt = [[row for row, own in zip(readers, halves, strict=True) if own == half] for half in (0, 1)]
    found: list[Expected] = [np.empty(0)] * len(readers[:most])
    for half in (0, 1):  # one after the other: a model holds the words of all readers
        tell(f"click model {half + 1} of 2: learning from {len(dealt[half])} readers")
        model = _Model(news, dealt[half], dealt[1 - half], seed)
        tell(f"click model {half + 1} of 2: judging {len(judged)} articles for {halves[:most].count(1 - half)} readers")
        rows = [row for row, own in enumerate(halves[:most]) if own != half]
        for row, clicks in zip(rows, model.expected_of([readers[row] for row in rows], judged), strict=True):
            found[row] = clicks
    return found


def expected_of_strangers(
    strangers: Sequence[TrainingReader],
    readers: Sequence[TrainingReader],
    news: News,
    *,
    places: Places,
    seed: int = 7,
    tell: Callable[[str], None] = lambda sentence: None,
) -> list[Expected]:
    """Of the articles at `places` for each of `strangers`, by one model of the clicks of all `readers`; no stranger's
    clicks teach."""
    _embed_signals([*readers, *strangers], news)
    tell(f"click model: learning from {len(readers)} readers")
    model = _Model(news, readers, strangers, seed)
    tell(f"click model: judging {len(places)} articles for {len(strangers)} readers")
    return model.expected_of(strangers, places)


def _embed_signals(readers: Sequence[TrainingReader], news: News) -> None:
    """In full batches, once."""
    told = (signal.text for reader in readers for _, signal in latest_signals(reader.profile))
    news.embed(list(dict.fromkeys(told)))


def halves_of(readers: Sequence[TrainingReader]) -> list[int]:
    """0 or 1 for each row, by reader."""
    users = {user: at % 2 for at, user in enumerate(dict.fromkeys(reader.user_id for reader in readers))}
    return [users[reader.user_id] for reader in readers]


class _Words:
    """TF-IDF of words, and latent semantics of readers as documents: what is known of all of them, and what the
    `readers` of this half clicked later."""

    def __init__(
        self, news: News, readers: Sequence[TrainingReader], others: Sequence[TrainingReader], seed: int
    ) -> None:
        self._told = {article.article_id: embedded_text(article) for article in news.articles}
        documents = ["\n".join([*self._known(reader), *self._clicked(reader)]) for reader in readers]
        documents += ["\n".join(self._known(reader)) for reader in {row.user_id: row for row in others}.values()]
        least = min(LEAST_USERS, max(1, len(documents) // 100))
        self._tfidf = TfidfVectorizer(
            ngram_range=(1, 2),
            stop_words="english",
            sublinear_tf=True,
            token_pattern=_WORDS,
            min_df=least,
            dtype=np.float32,
        )
        used = self._tfidf.fit_transform(documents)
        dimensions = min(LATENT[-1], len(documents) // LEAST_USED, min(used.shape) - 1)
        self._latent: Matrix | None = None
        if dimensions > 0:
            components = TruncatedSVD(dimensions, random_state=seed).fit(used).components_.T
            # of the sparse rows' type and order: scipy would copy all of it for each reader
            self._latent = np.ascontiguousarray(components, np.float32)
        self._articles = self._spaces(list(self._told.values()))

    def likeness(self, signals: Sequence[Signal], places: Places) -> list[Matrix]:
        """[signals, places] in each space: words, and both of the latent ones, none of them below 0."""
        spaces = zip(self._spaces([self._text(signal) for signal in signals]), self._articles, strict=True)
        return [np.maximum(_dense(ours @ theirs[places].T), 0) for ours, theirs in spaces]

    def _spaces(self, texts: Sequence[str]) -> list[Any]:
        """[texts, dimensions], rows of length one, or of zeros where no word is known."""
        words = self._tfidf.transform(texts)
        if self._latent is None:
            return [words]
        latent = _dense(words @ self._latent)
        return [words, *(normalize(latent[:, :width]) for width in LATENT)]

    def _known(self, reader: TrainingReader) -> list[str]:
        return [self._text(signal) for _, signal in latest_signals(reader.profile)]

    def _clicked(self, reader: TrainingReader) -> list[str]:
        return [self._told[article] for article in reader.clicked if article in self._told]

    def _text(self, signal: Signal) -> str:
        return self._told.get(signal.article_id or "", signal.text)


def _dense(rows: Any) -> Matrix:
    return np.asarray(rows.todense() if hasattr(rows, "todense") else rows, np.float32)


class _Model:
    """Fitted to the clicks of `readers`; of the others it knows what came before."""

    def __init__(
        self, news: News, readers: Sequence[TrainingReader], others: Sequence[TrainingReader], seed: int
    ) -> None:
        self._news, self._rng = news, np.random.default_rng(seed)
        self._words = _Words(news, readers, others, seed)
        self._place = {article.article_id: at for at, article in enumerate(news.articles)}
        published = np.array([article.published_at for article in news.articles])
        self._shown = (published >= news.shown_from_ms) & (published <= news.shown_until_ms)
        rate = min(1.0, MOST_PAIRS / max(1, len(readers) * self._shown.sum()))
        with threadpool_limits(1):  # as in expected_of
            rows = [self._pairs(reader, rate) for reader in readers]
        clicked = np.concatenate([row[1] for row in rows])
        self._rate, self._constant = rate, float(clicked.mean())
        self._boosting: Any = None
        if 0 < clicked.sum() < len(clicked):
            boosting = HistGradientBoostingClassifier(
                max_iter=150,
                learning_rate=0.06,
                max_leaf_nodes=7,
                min_samples_leaf=60,
                l2_regularization=5.0,
                random_state=seed,  # of the pairs that tell when to stop
            )
            self._boosting = boosting.fit(np.concatenate([row[0] for row in rows]), clicked)

    def expected_of(self, readers: Sequence[TrainingReader], places: Places) -> list[Expected]:
        with threadpool_limits(1):  # between products this small a second thread spins: half of the time was lost
            return [self._expected(reader, places) for reader in readers]

    def _expected(self, reader: TrainingReader, places: Places) -> Expected:
        """[places], corrected for the share of unclicked pairs that the model was fitted to."""
        if self._boosting is None:
            odds = np.full(len(places), self._constant)
        else:
            odds = self._boosting.predict_proba(self._features(reader, places))[:, 1]
        odds = odds / (odds + (1 - odds) / self._rate)
        odds[np.isin(places, self._seen(reader))] = 0.0
        return np.asarray(odds, np.float64)

    def _pairs(self, reader: TrainingReader, rate: float) -> tuple[Matrix, NDArray[np.bool_]]:
        clicked = np.zeros(len(self._news.articles), bool)
        clicked[[self._place[article] for article in reader.clicked if article in self._place]] = True
        kept = clicked | self._shown & (self._rng.random(len(clicked)) < rate)
        kept[self._seen(reader)] = False
        return self._features(reader, np.flatnonzero(kept)), clicked[kept]

    def _seen(self, reader: TrainingReader) -> list[int]:
        places = (self._place.get(signal.article_id or "") for signal in reader.profile.click)
        return [place for place in places if place is not None]

    def _features(self, reader: TrainingReader, places: Places) -> Matrix:
        """[places, features]"""
        kinds, signals = zip(*latest_signals(reader.profile), strict=True)
        is_click, shares = np.array([kind == "click" for kind in kinds]), _shares(signals)
        cosines = self._news.embed([signal.text for signal in signals]) @ self._news.vectors[places].T
        columns = [cosines.mean(0), cosines.max(0), _mean(shares, cosines), np.sort(cosines, axis=0)[-3:].mean(0)]
        for like in self._words.likeness(signals, places):
            close = like * like * like
            columns += [like.max(0), shares @ like, _mean(shares, like), shares @ close, _mean(shares, close)]
            columns += [shares[is_click] @ like[is_click], shares[~is_click] @ like[~is_click]]
        columns.append(np.full(len(places), len(signals)))
        return np.asarray(np.stack(columns, axis=1), np.float32)


def _mean(shares: Matrix, like: Matrix) -> Matrix:
    return np.asarray(shares @ like / shares.sum(), np.float32)


def _shares(signals: Sequence[Signal]) -> Matrix:
    """Halved for every HALF_LIFE_MS that a signal is older than the newest."""
    ages = signals[0].occurred_at - np.array([signal.occurred_at for signal in signals])
    return np.asarray(0.5 ** (ages / HALF_LIFE_MS), np.float32)
