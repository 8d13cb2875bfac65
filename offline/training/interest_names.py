"""A few hundred short queries that name what the news is about, the same for all readers.

News is clustered, and each cluster gets the words that a search for it needs: of the phrases that its articles use and
others do not, greedily those that bring the query's vector nearest to the cluster's centre (phrases as in KeyBERT,
their weights as in BERTopic's class-based TF-IDF). A small model can know so few by heart, and says in the words of
news what pages and searches say in others. Whole headlines, picked in the same way, found as much and are twice as long
to write; phrases of each reader's own were too many to learn.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

from offline.training.news_index import Vectors
from schemas.queries import parse_queries

ARTICLES_PER_NAME: Final = 4
MOST_NAMES: Final = 400
MOST_WORDS: Final = 6  # of one name
PHRASE_WORDS: Final = 3
LEAST_ARTICLES: Final = 3  # that use a phrase
OFFERED: Final = 14  # phrases from which a name is put together
LEAST_NEARER: Final = 0.01  # that one more phrase must bring the name, in cosine
_TOKEN: Final = r"(?u)\b\w[\w'’-]+\b"

Embed = Callable[[Sequence[str]], Vectors]


def interest_names(texts: Sequence[str], vectors: Vectors, embed: Embed, seed: int = 7) -> list[str]:
    """Distinct names of clusters of the news whose `texts` and `vectors` [articles, d] these are."""
    count = max(1, min(MOST_NAMES, len(texts) // ARTICLES_PER_NAME))
    clusters = KMeans(count, n_init=1, random_state=seed).fit(vectors)
    centres = clusters.cluster_centers_ / np.linalg.norm(clusters.cluster_centers_, axis=1, keepdims=True)
    names = _nearest_names(_phrases(texts, clusters.labels_, count), np.asarray(centres, np.float32), embed)
    return list(dict.fromkeys(query for name in names for query in parse_queries(name)))


def _phrases(texts: Sequence[str], clusters: NDArray[np.int32], count: int) -> list[list[str]]:
    """For each cluster the phrases that tell it from the others, most telling first."""
    words = CountVectorizer(
        ngram_range=(1, PHRASE_WORDS), token_pattern=_TOKEN, lowercase=False, min_df=LEAST_ARTICLES, binary=True
    )
    try:
        uses = words.fit_transform(texts)
    except ValueError:  # too few articles share a phrase
        return [[] for _ in range(count)]
    phrases = words.get_feature_names_out()
    usable = np.array([_usable(phrase) for phrase in phrases])
    everywhere = np.asarray(uses.sum(axis=0)).ravel() / len(texts)
    found = []
    for cluster in range(count):
        members = np.flatnonzero(clusters == cluster)  # none where articles are copies of each other
        within = np.asarray(uses[members].sum(axis=0)).ravel() / max(1, len(members))
        said = usable & (within > 0)
        telling = np.where(said, within * np.log((within + 0.01) / (everywhere + 0.01)), -np.inf)
        best = np.argsort(-telling, kind="stable")[:OFFERED]
        found.append([str(phrases[place]) for place in best if said[place]])
    return found


def _usable(phrase: str) -> bool:
    """Neither its first nor its last word is a stop word."""
    words = phrase.lower().split()
    return words[0] not in ENGLISH_STOP_WORDS and words[-1] not in ENGLISH_STOP_WORDS


def _nearest_names(phrases: Sequence[Sequence[str]], centres: Vectors, embed: Embed) -> list[str]:
    """One for each cluster, "" where nothing can be said: all grow by one phrase at a time, embedded together."""
    names, near = [""] * len(phrases), np.full(len(phrases), -np.inf)
    growing = list(range(len(phrases)))
    while growing:
        offers = [(at, offer) for at in growing for offer in _longer(names[at], phrases[at])]
        vectors = embed([offer for _, offer in offers])
        cosines = np.einsum("nd,nd->n", vectors, centres[[at for at, _ in offers]]) if offers else np.empty(0)
        grown = set[int]()
        for row in np.argsort(-cosines, kind="stable"):
            at, offer = offers[row]
            if at not in grown and cosines[row] > near[at] + LEAST_NEARER:
                names[at], near[at] = offer, cosines[row]
                grown.add(at)
        growing = sorted(grown)
    return names


def _longer(name: str, phrases: Sequence[str]) -> list[str]:
    """`name` with one more phrase that shares no word with it, within MOST_WORDS."""
    said = set(name.lower().split())
    longer = (f"{name} {phrase}".strip() for phrase in phrases if not said & set(phrase.lower().split()))
    return [offer for offer in longer if len(offer.split()) <= MOST_WORDS]
