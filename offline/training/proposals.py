"""Queries that might serve a reader, from sources that ask no model, and the list that covers most of what is wanted.

What is wanted comes from the clicks of readers with like signals, never from one reader's own clicks alone: lists
chosen on the very clicks that they are scored on look three times better than they are (docs: quality, point 2).
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.profile import UserProfile, latest_signals
from schemas.queries import MAX_QUERIES, parse_queries

Vectors = NDArray[np.float32]

PHRASE_WORDS = (2, 5)  # of one phrase, from and to
LEAST_GAIN = 0.01  # share of what is wanted that one more query must bring
_WORD = re.compile(r"[\w'’$%&.-]*\w[%$]?")
_FUNCTION_WORDS = frozenset(  # English; a phrase neither begins nor ends with one
    re.findall(
        r"\w+",
        "a an the and or but of in on at to for from by with without about into over after before as is are was were "
        "be been it its this that these those he she they we you i his her their our your my not no do does did how "
        "what when where who why which will would can could should may might than then so if up out off new says say "
        "said",
    )
)


class TrainingReader(msgspec.Struct, frozen=True, kw_only=True):
    """One reader at a moment, and what was clicked after it."""

    user_id: str
    profile: UserProfile  # cleaned, as it was at that moment
    clicked: tuple[str, ...]  # article ids, later


def signal_texts(profile: UserProfile) -> list[str]:
    """The reader's cleaned signals, newest first."""
    return [signal.text for _, signal in latest_signals(profile)]


def phrases(text: str) -> list[str]:
    """Runs of 2-5 words of `text` that begin and end with a content word and cross no punctuation."""
    shortest, longest = PHRASE_WORDS
    found: dict[str, None] = {}
    for part in re.split(r"[,;:!?()\[\]|]|\s[-–—]\s", text):
        words = _WORD.findall(part)
        for start in range(len(words)):
            for end in range(start + shortest, min(len(words), start + longest) + 1):
                if _content(words[start]) and _content(words[end - 1]):
                    found[" ".join(words[start:end])] = None
    return list(found)


def _content(word: str) -> bool:
    return word.casefold() not in _FUNCTION_WORDS and any(character.isalpha() for character in word)


def chosen_half(user_id: str, articles: Iterable[str]) -> tuple[list[str], list[str]]:
    """Clicks that lists may be chosen by, and clicks held apart to score them; a hash decides."""
    halves: tuple[list[str], list[str]] = ([], [])
    for article in articles:
        digest = hashlib.blake2b(f"{user_id}\0{article}".encode(), digest_size=1).digest()
        halves[digest[0] % 2].append(article)
    return halves


def nearest_readers(vectors: Vectors, count: int) -> NDArray[np.int64]:
    """For each row of `vectors` [readers, d] (unit length), the places of the `count` most similar other rows."""
    near = np.empty((len(vectors), min(count, max(0, len(vectors) - 1))), np.int64)
    for at in range(0, len(vectors), 256):
        similar = vectors[at : at + 256] @ vectors.T
        rows = np.arange(len(similar))
        similar[rows, at + rows] = -np.inf
        near[at : at + 256] = np.argsort(-similar, axis=1, kind="stable")[:, : near.shape[1]]
    return near


def wanted_articles(own: Sequence[str], like: Sequence[Sequence[str]], own_weight: float) -> dict[str, float]:
    """Weights, adding up to 1, of articles clicked by readers with like signals and in the reader's own chosen half."""
    weights: dict[str, float] = {}
    for clicks, weight in [(own, own_weight), *((clicks, 1.0) for clicks in like)]:
        for article in clicks:
            weights[article] = weights.get(article, 0.0) + weight / len(clicks)
    total = sum(weights.values())
    return {article: weight / total for article, weight in weights.items()} if total else {}


def covering_list(
    candidates: Sequence[str], finds: Mapping[str, Collection[str]], wanted: Mapping[str, float]
) -> tuple[str, ...]:
    """At most five candidates, greedily, each the one that finds most of what is wanted and not yet found.

    Coverage is submodular, so greedy choice reaches at least 1 - 1/e of the best (Nemhauser et al., 1978). Ties go to
    the earlier candidate; near-copies are left out as the parser does.
    """
    left, chosen = dict(wanted), list[str]()
    while len(chosen) < MAX_QUERIES and candidates:
        gains = [sum(left.get(article, 0.0) for article in finds.get(query, ())) for query in candidates]
        best = int(np.argmax(gains))
        if gains[best] < LEAST_GAIN:
            break
        chosen.append(candidates[best])
        for article in finds[candidates[best]]:
            left.pop(article, None)
    return parse_queries("\n".join(chosen))


def found_share(queries: Iterable[str], finds: Mapping[str, Collection[str]], wanted: Mapping[str, float]) -> float:
    """The weight of what `queries` find together, 0-1."""
    found = {article for query in queries for article in finds.get(query, ())}
    return sum(weight for article, weight in wanted.items() if article in found)
