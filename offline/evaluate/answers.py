"""What a policy answers for a reader: queries to be searched for, a ranking of articles, or both to be fused.

A policy's answers are a file of JSON Lines, so that any worker, and any other program, can hand them over.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from offline.evaluate.retrieval import Finder, Query
from schemas.candidates import RANK_CONSTANT
from schemas.config import Api
from schemas.errors import UsageError


class WeightedQuery(msgspec.Struct, frozen=True, array_like=True):
    text: str
    weight: float = 1.0


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One reader's. Both empty: the policy has nothing for this reader, which counts as finding nothing."""

    user_id: str
    queries: tuple[WeightedQuery, ...] = ()
    ranked: tuple[str, ...] = ()  # article ids, best first
    ranked_weight: float = 1.0  # of `ranked` beside what the queries find


_decoder = msgspec.json.Decoder(Answer)


def write_answers(path: Path, answers: Iterable[Answer]) -> None:
    encoder = msgspec.json.Encoder()
    scratch = path.with_suffix(".tmp")
    scratch.write_bytes(b"".join(encoder.encode(answer) + b"\n" for answer in answers))
    scratch.replace(path)


def read_answers(path: Path) -> dict[str, Answer]:
    """By reader. UsageError names the line that is none."""
    found: dict[str, Answer] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                answer = _decoder.decode(line)
            except msgspec.MsgspecError as error:
                raise UsageError(f"{path}, line {number}: {error}") from error
            found[answer.user_id] = answer
    return found


def of_lists(lists: Mapping[str, Iterable[str]]) -> list[Answer]:
    """Answers of lists of queries by reader, each query with weight 1."""
    return [
        Answer(user_id=user_id, queries=tuple(WeightedQuery(text) for text in queries))
        for user_id, queries in lists.items()
    ]


def fused_answers(left: Mapping[str, Answer], right: Mapping[str, Answer], weight: float = 1.0) -> list[Answer]:
    """For each reader the queries of both, and the ranking of `right`: a recall path added to what was there.

    `weight` is that of `left`, where what was there has 1.
    """
    found = []
    for user_id, ours in left.items():
        theirs = right.get(user_id, Answer(user_id=user_id))
        queries = tuple(WeightedQuery(query.text, query.weight * weight) for query in ours.queries)
        found.append(
            Answer(
                user_id=user_id,
                queries=(*queries, *theirs.queries),
                ranked=theirs.ranked,
                ranked_weight=theirs.ranked_weight / weight,
            )
        )
    return found


def ranked_by(answer: Answer, finder: Finder, api: Api, *, k: int, seen: frozenset[str]) -> list[str]:
    """At most `k` article ids. The texts of the queries must be known to `finder`; `seen` are left out."""
    found = list[str]()
    if answer.queries:
        found = finder.candidates(
            [Query(query.text, "student", query.weight) for query in answer.queries],
            k=k,
            articles_per_query=max(k, api.articles_per_query),
            query_quota=api.query_quota if len(answer.queries) > 1 else 1.0,
            seen=seen,
        )
    given = [article for article in answer.ranked if article not in seen]
    if not (answer.queries and given):
        return (found or given)[:k]
    return fuse([(found, 1.0), (given, answer.ranked_weight)])[:k]


def fuse(rankings: Iterable[tuple[Iterable[str], float]]) -> list[str]:
    """Reciprocal rank fusion, as in schemas/candidates.py, of rankings with their weights."""
    votes: dict[str, float] = {}
    for ranking, weight in rankings:
        for rank, article in enumerate(ranking, start=1):
            votes[article] = votes.get(article, 0.0) + weight / (RANK_CONSTANT + rank)
    return sorted(votes, key=lambda article: (-votes[article], article))
