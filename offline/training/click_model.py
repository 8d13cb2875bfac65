"""How likely a reader is to click each article, learnt from the clicks of OTHER training readers.

Lists are chosen by it, since the few clicks of one reader say little about what that reader wants, and lists chosen on
the very clicks that they are scored on look three times better than they are (docs: quality, point 2). Cross-fitting:
readers are dealt into two halves, each judged by the model of the other half, so that no reader's own later clicks
choose that reader's list.

The model is gradient boosting (scikit-learn) over likeness of signals and article: cosines of vectors, TF-IDF of words,
and topics (k-means of the articles' vectors) that readers of like words clicked, by naive Bayes. The last is what no
likeness of texts knows: which news a reader of pages about something else clicks.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.naive_bayes import MultinomialNB

from offline.training.news_index import Vectors
from offline.training.proposals import TrainingReader
from schemas.article import Article, embedded_text
from schemas.profile import Signal, latest_signals

HALF_LIFE_MS: Final = 3 * 86_400_000  # of a signal's say
RECENT: Final = 10  # latest signals, which BM25's baseline reads too
ARTICLES_PER_TOPIC: Final = 12
MOST_TOPICS: Final = 120
MOST_PAIRS: Final = 1_000_000  # of reader and article that one model is fitted to; the rest of the unclicked is dropped
_WORDS: Final = r"(?u)\b\w[\w'’-]+\b"

Matrix = NDArray[np.float64]
Expected = NDArray[np.float64]  # [articles], a click's probability, 0 for what the reader has clicked


class News(msgspec.Struct, frozen=True):
    """Articles that may be clicked, with their vectors [articles, d] of unit length."""

    articles: Sequence[Article]
    vectors: Vectors
    embed: Callable[[Sequence[str]], Vectors]
    alive: int = 0  # articles that can be found at one moment; 0: all of them
    shown_from_ms: int = 0  # older articles were shown to no reader any more: lists are chosen by them, not judged


def expected_clicks(readers: Sequence[TrainingReader], news: News, seed: int = 7) -> list[Expected]:
    """For each row, by the model of the half that its reader is not in; at least two rows.

    A reader who is seen at several moments is in one half with all of them.
    """
    space, halves = _Space(news, seed), halves_of(readers)
    rows = list(zip(readers, halves, strict=True))
    models = [_Model(space, [row for row, dealt in rows if dealt == half], seed) for half in (0, 1)]
    return [models[1 - half].expected(row) for row, half in rows]


def halves_of(readers: Sequence[TrainingReader]) -> list[int]:
    """0 or 1 for each row, by reader."""
    users = {user: at % 2 for at, user in enumerate(dict.fromkeys(reader.user_id for reader in readers))}
    return [users[reader.user_id] for reader in readers]


class _Space:
    """What both halves share: it knows articles and no clicks."""

    def __init__(self, news: News, seed: int) -> None:
        self.news = news
        texts = [embedded_text(article) for article in news.articles]
        self.words = TfidfVectorizer(ngram_range=(1, 2), stop_words="english", sublinear_tf=True, token_pattern=_WORDS)
        self.articles_words = self.words.fit_transform(texts).T.tocsc()
        topics = max(1, min(MOST_TOPICS, len(texts) // ARTICLES_PER_TOPIC))
        self.topics = KMeans(topics, n_init=1, random_state=seed).fit(news.vectors)
        self.place = {article.article_id: at for at, article in enumerate(news.articles)}

    def topics_of(self, vectors: Vectors) -> NDArray[np.int64]:
        """The topic of each row."""
        found: NDArray[np.int64] = self.topics.predict(vectors).astype(np.int64)
        return found


class _Model:
    """Fitted to the clicks of `readers`."""

    def __init__(self, space: _Space, readers: Sequence[TrainingReader], seed: int) -> None:
        self._space, self._rng = space, np.random.default_rng(seed)
        self._associations = _associations(space, readers)
        rate = min(1.0, MOST_PAIRS / max(1, len(readers) * len(space.news.articles)))
        rows = [self._pairs(reader, rate) for reader in readers]
        clicked = np.concatenate([row[1] for row in rows])
        self._rate, self._constant = rate, float(clicked.mean())
        self._boosting: Any = None
        if 0 < clicked.sum() < len(clicked):
            boosting = HistGradientBoostingClassifier(
                max_iter=80, learning_rate=0.06, max_leaf_nodes=15, min_samples_leaf=60, l2_regularization=5.0
            )
            self._boosting = boosting.fit(np.concatenate([row[0] for row in rows]), clicked)

    def expected(self, reader: TrainingReader) -> Expected:
        """Corrected for the share of unclicked pairs that the model was fitted to."""
        if self._boosting is None:
            odds = np.full(len(self._space.news.articles), self._constant)
        else:
            odds = self._boosting.predict_proba(self._features(reader))[:, 1]
        odds = odds / (odds + (1 - odds) / self._rate)
        odds[self._seen(reader)] = 0.0
        return np.asarray(odds, np.float64)

    def _pairs(self, reader: TrainingReader, rate: float) -> tuple[Matrix, NDArray[np.bool_]]:
        clicked = np.zeros(len(self._space.news.articles), bool)
        clicked[[self._space.place[article] for article in reader.clicked if article in self._space.place]] = True
        kept = clicked | (self._rng.random(len(clicked)) < rate)
        kept[self._seen(reader)] = False
        return self._features(reader)[kept], clicked[kept]

    def _seen(self, reader: TrainingReader) -> list[int]:
        places = (self._space.place.get(signal.article_id or "") for signal in reader.profile.click)
        return [place for place in places if place is not None]

    def _features(self, reader: TrainingReader) -> Matrix:
        """[articles, features]"""
        kinds, signals = zip(*latest_signals(reader.profile), strict=True)
        texts, is_click = [signal.text for signal in signals], np.array([kind == "click" for kind in kinds])
        shares = _shares(signals)
        vectors, news = self._space.news.embed(texts), self._space.news
        cosines = vectors @ news.vectors.T
        words = np.asarray((self._space.words.transform(texts) @ self._space.articles_words).todense())
        topics = self._associations(texts)
        if is_click.any():
            topics[is_click] = np.eye(topics.shape[1])[self._space.topics_of(vectors[is_click])]
        told = (shares[:, None] * topics).sum(0)
        columns = [cosines.mean(0), cosines.max(0), shares @ cosines, np.sort(cosines, axis=0)[-3:].mean(0)]
        columns += [words.sum(0), words[:RECENT].sum(0), shares @ words, words.max(0)]
        columns += [words[is_click].sum(0), words[~is_click].sum(0)]
        columns += [share[self._space.topics.labels_] for share in (told, told / shares.sum(), topics.sum(0))]
        columns.append(np.full(len(news.articles), len(texts)))
        return np.stack(columns, axis=1)


def _shares(signals: Sequence[Signal]) -> Matrix:
    """Halved for every HALF_LIFE_MS that a signal is older than the newest."""
    ages = signals[0].occurred_at - np.array([signal.occurred_at for signal in signals])
    return np.asarray(0.5 ** (ages / HALF_LIFE_MS), np.float64)


def _associations(space: _Space, readers: Sequence[TrainingReader]) -> Callable[[Sequence[str]], Matrix]:
    """Texts of pages and searches -> [texts, topics], the topics of news that readers of such texts click."""
    texts, topics, weights = list[str](), list[int](), list[float]()
    for reader in readers:
        titles = [signal.text for signal in reader.profile.click]
        clicks = space.topics_of(space.news.embed(titles)).tolist() if titles else []
        places = [space.place[article] for article in reader.clicked if article in space.place]
        clicks += space.topics.labels_[places].tolist()
        for _, signal in (row for row in latest_signals(reader.profile) if row[0] != "click"):
            texts += [signal.text] * len(clicks)
            topics += clicks
            weights += [1 / len(clicks)] * len(clicks)
    count = space.topics.n_clusters
    words = CountVectorizer(ngram_range=(1, 2), binary=True, token_pattern=_WORDS)
    try:
        model = MultinomialNB(alpha=0.1).fit(words.fit_transform(texts), topics, sample_weight=weights)
    except ValueError:  # no pages, no searches or no words: nothing to associate
        return lambda asked: np.zeros((len(asked), count))

    def of(asked: Sequence[str]) -> Matrix:
        found = np.zeros((len(asked), count))
        found[:, model.classes_] = model.predict_proba(words.transform(asked))
        return found

    return of
