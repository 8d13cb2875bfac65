"""What a list of queries is worth to a reader: the clicks that it can be expected to bring (click_model.py).

A list is judged by the places that its queries fill TOGETHER, merged as the API merges them: judged each by its own,
more queries always look better, and a reader who is served five weak ones beside a good one is served worse. It is
judged at two depths: by the first ten places alone two queries look best, and they find less among the first fifty than
the reader's own signals do.
"""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from offline.training.news_index import Vectors, best_places
from schemas.candidates import RANK_CONSTANT
from schemas.config import Api
from schemas.profile import UserProfile, latest_signals
from schemas.queries import MAX_QUERIES

LEAST_GAIN = 0.02  # share that one more query must add to what the list brings
ANY_GAIN = -1.0  # as many queries as a list may have
SHORTLIST = 60  # candidates, best by themselves, among which a list is put together


class TrainingReader(msgspec.Struct, frozen=True, kw_only=True):
    """One reader at a moment, and what was clicked after it."""

    user_id: str
    profile: UserProfile  # cleaned, as it was at that moment
    clicked: tuple[str, ...]  # article ids, later


class Depths(msgspec.Struct, frozen=True, kw_only=True):
    """How far a search goes into the news."""

    hits: int = Api().articles_per_query  # of one query
    places: tuple[int, int] = (10, 50)  # of the merged list: Recall@10 and Recall@50

    def in_more_news(self, times: float) -> "Depths":
        """The same share of an index that holds so many times as much news: what stands for ten places there."""
        first, second = (max(1, round(place * times)) for place in self.places)
        return Depths(hits=max(1, round(self.hits * times)), places=(first, second))


def signal_texts(profile: UserProfile) -> list[str]:
    """The reader's cleaned signals, newest first."""
    return [signal.text for _, signal in latest_signals(profile)]


def votes_of(cosines: Vectors, hits: int) -> Vectors:
    """[queries, articles] -> votes of reciprocal rank fusion, 1 / (60 + rank), for each query's nearest articles."""
    nearest = best_places(cosines, hits)
    ranks = np.arange(1, nearest.shape[1] + 1, dtype=np.float32)
    found = np.zeros(cosines.shape, np.float32)
    np.put_along_axis(found, nearest, 1 / (RANK_CONSTANT + ranks)[None, :], axis=1)
    return found


def brought(votes: NDArray[np.floating[Any]], wanted: NDArray[np.float64], places: int) -> NDArray[np.float64]:
    """[..., articles] fused votes -> what stands in the first `places` of all that is wanted, as a share of the most
    that can stand there."""
    places = min(places, len(wanted))
    most = np.sort(wanted)[-places:].sum()
    served = np.argpartition(-votes, places - 1, axis=-1)[..., :places]
    voted = np.take_along_axis(votes, served, axis=-1) > 0
    return np.asarray((wanted[served] * voted).sum(axis=-1) / max(most, 1e-12), np.float64)


def worth_of(votes: Vectors, wanted: NDArray[np.float64], depths: Depths) -> NDArray[np.float64]:
    """[..., articles] fused votes -> mean of what they bring at both depths, 0-1."""
    first, second = (brought(votes, wanted, places) for places in depths.places)
    return np.asarray((first + second) / 2, np.float64)


def fused_list(
    votes: Vectors, wanted: NDArray[np.float64], depths: Depths, least_gain: float = LEAST_GAIN
) -> list[int]:
    """At most five rows of `votes` [candidates, articles], greedily, each the one that is worth most beside the former.

    It ends where no candidate adds `least_gain` of what the list is worth already. Ties go to the earlier candidate.
    """
    unseen = wanted > 0
    alone = votes @ wanted.astype(np.float32)  # equal ones differ in their last digit, by the CPU
    short = np.sort(np.argsort(-alone, kind="stable")[:SHORTLIST])
    offered, free = votes[short] * unseen, np.ones(len(short), bool)
    fused, chosen, reached = np.zeros(votes.shape[1], np.float32), list[int](), 0.0
    while len(chosen) < MAX_QUERIES and free.any():
        gains = np.where(free, worth_of(fused + offered, wanted, depths), -np.inf)
        best = int(gains.argmax())
        if gains[best] <= reached * (1 + least_gain):
            break
        chosen.append(int(short[best]))
        free[best] = False
        fused, reached = fused + offered[best], float(gains[best])
    return chosen
