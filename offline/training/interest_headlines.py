"""A few hundred headlines that stand for what readers are interested in: the queries of the lists a model learns from.

Every reader's list is put together from the same ones, so that like readers are shown like lists and each query many
times. Lists of the reader's own phrases bring as much, but which of a hundred phrases is best is a matter of chance,
and a model that is shown them learns none of it (README, Training).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
import numpy as np

from offline.training.click_model import Expected
from offline.training.news_index import Vectors
from offline.training.proposals import Depths, fused_list, votes_of
from schemas.queries import parse_queries

MOST_CANDIDATES = 3_000  # headlines, evenly over time
MOST_HEADLINES = 400  # 250 brought a little less at both depths
ASKED_READERS = 600  # whose best lists decide which headlines are kept
_VOTED_AT_ONCE = 512
T = TypeVar("T")


class InterestHeadlines(msgspec.Struct, frozen=True):
    """The queries and their votes [queries, articles] in the news that chooses."""

    queries: Sequence[str]
    votes: Vectors
    depths: Depths

    def list_for(self, expected: Expected) -> tuple[str, ...]:
        """The best list for one reader, best query first, by the clicks expected of the same articles."""
        return tuple(self.queries[row] for row in fused_list(self.votes, expected, self.depths))


def interest_headlines(
    titles: Sequence[str],
    vectors: Vectors,
    embed: Callable[[Sequence[str]], Vectors],
    expected: Sequence[Expected],
    depths: Depths,
) -> InterestHeadlines:
    """Those of `titles` that the best lists of some readers need most often.

    `vectors` [articles, d] are of the news that chooses, `expected` are clicks of it, one row for each reader.
    """
    candidates = _evenly(_usable(titles), MOST_CANDIDATES)
    parts = [candidates[at : at + _VOTED_AT_ONCE] for at in range(0, len(candidates), _VOTED_AT_ONCE)]
    empty = np.empty((0, len(vectors)), np.float32)
    votes = np.concatenate([empty, *(votes_of(embed(part) @ vectors.T, depths.hits) for part in parts)])
    needed = Counter(row for clicks in _evenly(expected, ASKED_READERS) for row in fused_list(votes, clicks, depths))
    kept = sorted(sorted(needed), key=lambda row: -needed[row])[:MOST_HEADLINES]
    return InterestHeadlines([candidates[row] for row in kept], votes[kept], depths)


def _usable(titles: Sequence[str]) -> list[str]:
    """As the parser reads them; those that it reads as one query, once each."""
    parsed = (parse_queries(title) for title in titles)
    return list(dict.fromkeys(queries[0] for queries in parsed if len(queries) == 1))


def _evenly(rows: Sequence[T], most: int) -> list[T]:
    places = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)) if len(rows) else []
    return [rows[place] for place in places]
