"""Ways to answer a reader: what is served, and the rivals that it must beat.

Every system gives one reader's ranked article ids. Those that search do so with the same index, limits and fusion as
the API; articles that the reader has clicked are out of every list.
"""

from collections.abc import Callable, Sequence

import msgspec

from offline.evaluate.held_out import HeldOutReader, Split, popular
from offline.evaluate.retrieval import Finder, Query
from offline.simulate.truth import ReaderTruth
from schemas.config import Api
from schemas.profile import latest_signals, seen_articles
from schemas.queries import distinct_queries, signals_as_queries

POPULAR_MS = 2 * 86_400_000  # popularity counts the clicks of the last two days

Rank = Callable[[HeldOutReader, int], list[str]]  # reader, k: article ids, best first
QueriesOf = Callable[[HeldOutReader], Sequence[Query]]


class Search(msgspec.Struct, frozen=True):
    """What all searching systems share."""

    finder: Finder
    api: Api

    async def system(self, queries_of: QueriesOf, readers: Sequence[HeldOutReader]) -> Rank:
        """The system that searches with these queries; it may be asked for these `readers` only."""
        await self.finder.add(query.text for reader in readers for query in queries_of(reader))
        return lambda reader, k: self.rank(reader, queries_of(reader), k)

    def rank(self, reader: HeldOutReader, queries: Sequence[Query], k: int) -> list[str]:
        return self.finder.candidates(
            queries,
            k=k,
            articles_per_query=max(k, self.api.articles_per_query),
            query_quota=self.api.query_quota if len(queries) > 1 else 1.0,
            seen=seen_articles(reader.profile),
        )


def own_signals(limit: int) -> QueriesOf:
    """The cleaned signals that the stream stores as queries."""
    return lambda reader: [Query(text, "signals") for text in signals_as_queries(reader.profile, limit=limit)]


def latest_click(reader: HeldOutReader) -> list[Query]:
    """The headline clicked last; the latest signal of another kind for a reader who never clicked."""
    texts = [signal.text for kind, signal in latest_signals(reader.profile) if kind == "click"]
    texts = texts or [signal.text for _, signal in latest_signals(reader.profile)]
    return [Query(text, "signals") for text in distinct_queries(texts, limit=1)]


def student_lists(lists: dict[str, tuple[str, ...]]) -> QueriesOf:
    """What the student wrote for each reader; nothing where no usable list came."""
    return lambda reader: [Query(text, "student") for text in lists.get(reader.user_id, ())]


def fused(student: QueriesOf, signals: QueriesOf, *, student_weight: float, signal_weight: float) -> QueriesOf:
    """Both, with their weights: what the API serves."""

    def queries_of(reader: HeldOutReader) -> list[Query]:
        weighted = ((student(reader), student_weight), (signals(reader), signal_weight))
        return [Query(row.text, row.source, weight) for rows, weight in weighted for row in rows if weight > 0]

    return queries_of


def true_interests(truths: dict[str, ReaderTruth], at_ms: int) -> QueriesOf:
    """An oracle: the names of the interests that hold at that moment, one query for each of their entities."""

    def queries_of(reader: HeldOutReader) -> list[Query]:
        active = (row for row in truths[reader.user_id].interests if row.from_ms <= at_ms < row.until_ms)
        pairs = ((row.topic.rpartition("/")[2].replace("-", " "), entity) for row in active for entity in row.entities)
        return [Query(f"{entity} {topic}", "signals") for topic, entity in dict.fromkeys(pairs)]

    return queries_of


def popularity(split: Split, pool: frozenset[str]) -> Rank:
    """Most clicked in the last two days before the moment, by everybody."""
    ranked = popular(
        article for at_ms, article in split.clicks_before if at_ms > split.at_ms - POPULAR_MS and article in pool
    )
    return lambda reader, k: _unseen(reader, ranked, k)


def popularity_told(split: Split, pool: frozenset[str], readers: Sequence[HeldOutReader]) -> Rank:
    """Most clicked AFTER the moment by all readers but the given ones: popularity that knows the future."""
    judged = {reader.user_id for reader in readers}
    later = (rows for user, rows in split.clicks_after.items() if user not in judged)
    ranked = popular(article for rows in later for article in rows if article in pool)
    return lambda reader, k: _unseen(reader, ranked, k)


def _unseen(reader: HeldOutReader, ranked: Sequence[str], k: int) -> list[str]:
    seen = seen_articles(reader.profile)
    return [article_id for article_id in ranked if article_id not in seen][:k]
