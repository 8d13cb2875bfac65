"""A few hundred headlines that stand for what readers are interested in, for the lists that a model learns from.

A list is put together from what the prompt tells of the reader, which a small model easily copies, and from headlines
that are the same for all readers, which it is shown often enough to know by heart: these say in the words of the news
what pages and searches say in others. Lists of free phrases gained as much over the signals, and the model that was
shown them wrote 1.4 queries a list.
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
HEADLINES_COUNT = 0.95  # of their worth, beside what the prompt tells: with 1 three of four queries are headlines
MOST_HEADLINES = 400  # 250 brought a little less at both depths
ASKED_READERS = 600  # whose best lists decide which headlines are kept
_VOTED_AT_ONCE = 512
T = TypeVar("T")


class InterestHeadlines(msgspec.Struct, frozen=True):
    """The queries and their votes [queries, articles] in the news that chooses."""

    queries: Sequence[str]
    votes: Vectors
    depths: Depths

    def list_for(
        self, expected: Expected, told: Sequence[str] = (), told_votes: Vectors | None = None
    ) -> tuple[str, ...]:
        """The best list for one reader, best query first, by the clicks expected of the same articles.

        `told` are queries of the reader's own and `told_votes` theirs.
        """
        votes = self.votes if told_votes is None else np.concatenate([told_votes, self.votes])
        counted = np.repeat((1.0, HEADLINES_COUNT), (len(told), len(self.queries)))
        queries = [*told, *self.queries]
        return tuple(queries[row] for row in fused_list(votes, expected, self.depths, counted))


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
