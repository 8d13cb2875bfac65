"""Merging what several queries found into one list of candidates."""

import math
from collections.abc import Collection, Sequence
from typing import Literal

import msgspec

RANK_CONSTANT = 60  # Cormack, Clarke, Büttcher: Reciprocal Rank Fusion, SIGIR 2009

CandidateSource = Literal["student", "signals", "recent"]


class Hit(msgspec.Struct, frozen=True):
    """One article that a search returned."""

    article_id: str
    title: str
    url: str
    similarity: float  # cosine
    published_at: int  # UTC ms


class QueryHits(msgspec.Struct, frozen=True):
    """A query's hits, best first. `weight` scales its votes."""

    query: str
    source: CandidateSource
    weight: float
    hits: Sequence[Hit]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One article for the recommender, with the query that brought it."""

    article_id: str
    title: str
    url: str
    score: float  # fused, comparable within one response only
    similarity: float  # cosine to `query`
    query: str
    source: CandidateSource
    published_at: int  # UTC ms


class _Fused(msgspec.Struct):
    hit: Hit
    best: QueryHits
    best_vote: float
    score: float


def merge_candidates(
    lists: Sequence[QueryHits], *, k: int, seen: Collection[str] = (), query_quota: float = 1.0
) -> tuple[Candidate, ...]:
    """The best `k` articles by weighted reciprocal rank fusion: score = sum of weight / (60 + rank).

    Articles in `seen` are out. No query is credited with more than `query_quota` of the k places as long as others have
    something to offer. Ties go by article id, so that equal input gives equal output.
    """
    fused = _fuse(lists, seen)
    ranked = sorted(fused.values(), key=lambda row: (-row.score, row.hit.article_id))
    return tuple(_candidate(row) for row in _apply_quota(ranked, k, max(1, math.ceil(k * query_quota))))


def _fuse(lists: Sequence[QueryHits], seen: Collection[str]) -> dict[str, _Fused]:
    fused: dict[str, _Fused] = {}
    for query_hits in lists:
        for rank, hit in enumerate(query_hits.hits, start=1):
            if hit.article_id in seen:
                continue
            vote = query_hits.weight / (RANK_CONSTANT + rank)
            row = fused.get(hit.article_id)
            if row is None:
                fused[hit.article_id] = _Fused(hit, query_hits, vote, vote)
                continue
            row.score += vote
            if vote > row.best_vote:
                row.hit, row.best, row.best_vote = hit, query_hits, vote
    return fused


def _apply_quota(ranked: Sequence[_Fused], k: int, places: int) -> list[_Fused]:
    taken: dict[str, int] = {}
    chosen: list[_Fused] = []
    spare: list[_Fused] = []
    for row in ranked:
        used = taken.get(row.best.query, 0)
        (chosen if used < places else spare).append(row)
        taken[row.best.query] = used + 1
        if len(chosen) == k:
            return chosen
    return chosen + spare[: k - len(chosen)]


def _candidate(row: _Fused) -> Candidate:
    return Candidate(
        article_id=row.hit.article_id,
        title=row.hit.title,
        url=row.hit.url,
        score=row.score,
        similarity=row.hit.similarity,
        query=row.best.query,
        source=row.best.source,
        published_at=row.hit.published_at,
    )
