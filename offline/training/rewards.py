"""The rewards of a list: five of the paper's, each in [0, 1] with weight 1, and three of ours that are off by default.

    align        mean over queries of the mean cosine to the ten nearest articles of an index of that time
    coverage     a judge: does the set reflect the reader's different interests
    specificity  a judge: is it rich in content
    diversity    2 / (n (n - 1)) * sum over i < j of (1 - cos(q_i, q_j)); 0 for fewer than two queries
    structure    1 when the text is a valid list to the last character, else 0
    hit          (ours) share of the articles clicked later that the queries find, each credited to one query
    expected_hit (ours) the share of what a model of other readers' clicks expects of the reader (expected_hit.py)
    copying      (ours) minus the share of queries that repeat a signal: in [-1, 0]

Each is a plain batch callable in TRL's form: `reward(prompts=, completions=, signals=, clicked=, **columns)` gives one
value for each completion, None to abstain. They pickle, and log their parts through TRL's `log_metric` when it is
given. The same objects rank best-of-N (`composite`, `best_of`).
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from offline.training.judges import EmbeddingCoverage, EmbeddingSpecificity, Judge, Judged
from offline.training.news_index import NewsIndex, TextVectors
from schemas.errors import UsageError
from schemas.queries import MAX_QUERIES, NEAR_COPY_OVERLAP, parse_queries

Values = list[float | None]
Reward = Callable[..., Values]
Completion = str | Sequence[Mapping[str, str]]  # a text, or the messages of a chat
LogMetric = Callable[[str, float], None]

SHARE_ABSTAINED = "/abstained"  # end of a part's name
PAPER = ("align", "coverage", "specificity", "diversity", "structure")
HIT = "hit"
EXPECTED_HIT = "expected_hit"
BEYOND = (HIT, EXPECTED_HIT, "copying")


class Align:
    """Mean closeness of the queries to what they find; 0 for an empty list."""

    __name__ = "align"

    def __init__(self, index: NewsIndex) -> None:
        self._index = index

    def __call__(self, completions: Sequence[Completion], **columns: Any) -> Values:
        lists = [queries_of(completion) for completion in completions]
        found = iter(self._index.find([query for queries in lists for query in queries]))
        rows = [[next(found).closeness for _ in queries] for queries in lists]
        _log(columns, "align/queries", [float(len(row)) for row in rows])
        _log(columns, "align/worst_query", [min(row) for row in rows if row])
        return [float(np.clip(fmean(row), 0, 1)) if row else 0.0 for row in rows]


class JudgedReward:
    """What a judge says of the reader's `signals` and the list."""

    def __init__(self, name: str, judge: Judge) -> None:
        self.__name__ = name
        self._judge = judge

    def __call__(self, completions: Sequence[Completion], signals: Sequence[Sequence[str]], **columns: Any) -> Values:
        rows = [Judged(tuple(told), queries_of(text)) for told, text in zip(signals, completions, strict=True)]
        values = self._judge(rows)
        _log(columns, f"{self.__name__}{SHARE_ABSTAINED}", [float(value is None) for value in values])
        return values


class Diversity:
    """Mean pairwise cosine distance, cut to [0, 1]: opposite vectors would give 2."""

    __name__ = "diversity"

    def __init__(self, texts: TextVectors) -> None:
        self._texts = texts

    def __call__(self, completions: Sequence[Completion], **columns: Any) -> Values:
        lists = [queries_of(completion) for completion in completions]
        self._texts.of([query for queries in lists for query in queries])  # one call of the embedder
        distances = [self._pairs(queries) for queries in lists]
        _log(columns, "diversity/nearest_pair", [float(row.min()) for row in distances if row.size])
        return [float(row.mean()) if row.size else 0.0 for row in distances]

    def _pairs(self, queries: Sequence[str]) -> np.ndarray[Any, Any]:
        vectors = self._texts.of(queries)
        above = np.triu_indices(len(queries), 1)
        distances: np.ndarray[Any, Any] = np.clip(1 - (vectors @ vectors.T)[above], 0, 1)
        return distances


class Structure:
    """Binary: nothing but a valid list."""

    __name__ = "structure"

    def __call__(self, completions: Sequence[Completion], **columns: Any) -> Values:
        return [float(is_valid_list(text_of(completion))) for completion in completions]


class Hit:
    """Recall of the `clicked` articles that the index holds; abstains for a reader without any."""

    __name__ = HIT

    def __init__(self, index: NewsIndex) -> None:
        self._index = index

    def __call__(self, completions: Sequence[Completion], clicked: Sequence[Sequence[str]], **columns: Any) -> Values:
        lists = [queries_of(completion) for completion in completions]
        self._index.find([query for queries in lists for query in queries])  # all searches at once
        credits = [self.credits(queries, ids) for queries, ids in zip(lists, clicked, strict=True)]
        _log(columns, "hit/lines_that_hit", [fmean(value > 0 for value in row) for row in credits if row])
        return [sum(row) if row is not None else None for row in credits]

    def credits(self, queries: Sequence[str], clicked: Sequence[str]) -> list[float] | None:
        """Each query's part of the recall: an article counts for the query that ranks it best, the earlier in a tie."""
        wanted = {article for article in clicked if article in self._index}
        if not wanted:
            return None
        best: dict[str, tuple[int, int]] = {}
        for line, found in enumerate(self._index.find(queries)):
            for rank, article in enumerate(found.article_ids):
                if article in wanted:
                    best[article] = min(best.get(article, (rank, line)), (rank, line))
        return [sum(line == place for _, line in best.values()) / len(wanted) for place in range(len(queries))]


class Copying:
    """A penalty: minus the share of queries whose words are those of a signal (the parser's overlap)."""

    __name__ = "copying"

    def __call__(self, completions: Sequence[Completion], signals: Sequence[Sequence[str]], **columns: Any) -> Values:
        pairs = [(queries_of(text), [_words(signal) for signal in told]) for text, told in _zip(completions, signals)]
        shares = [fmean(_copied(query, told) for query in queries) if queries else 0.0 for queries, told in pairs]
        return [-share if share else 0.0 for share in shares]


def make_rewards(
    index: NewsIndex, *, coverage: Judge | None = None, specificity: Judge | None = None, beyond: Sequence[str] = ()
) -> dict[str, Reward]:
    """The paper's five by name, by the embedding judges unless others are given, and those of BEYOND that are named;
    without `expected_hit`, which needs more than an index."""
    rewards: dict[str, Reward] = {
        "align": Align(index),
        "coverage": JudgedReward("coverage", coverage or EmbeddingCoverage(index.texts)),
        "specificity": JudgedReward("specificity", specificity or EmbeddingSpecificity(index)),
        "diversity": Diversity(index.texts),
        "structure": Structure(),
    }
    reward_names(beyond)
    others: dict[str, Reward] = {HIT: Hit(index), "copying": Copying()}
    return rewards | {name: others[name] for name in beyond if name in others}


def reward_names(beyond: Sequence[str]) -> tuple[str, ...]:
    """The paper's five and those that are named; UsageError for a name that there is not."""
    if unknown := [name for name in beyond if name not in BEYOND]:
        raise UsageError(f"no reward beyond the paper's is called {unknown[0]}: there are {', '.join(BEYOND)}")
    return (*PAPER, *beyond)


def weighted(names: Iterable[str], weights: Mapping[str, float]) -> dict[str, float]:
    """Of each reward, 1 where none is given; UsageError for weights that teach nothing."""
    known = {name: weights.get(name, 1.0) for name in names}
    if unknown := sorted(set(weights) - set(known)):
        raise UsageError(f"no reward is called {', '.join(unknown)}: there are {', '.join(known)}")
    if not all(map(math.isfinite, known.values())):
        raise UsageError("the weight of a reward is a number")
    if not any(known.values()):
        raise UsageError("every reward has weight 0: nothing can be learnt")
    return known


def composite(
    rewards: Mapping[str, Reward], completions: Sequence[Completion], weights: Mapping[str, float] = {}, **columns: Any
) -> list[float]:
    """The weighted sum for each completion, weight 1 where none is named; what abstains adds nothing."""
    totals = [0.0] * len(completions)
    for name, reward in rewards.items():
        weight = weights.get(name, 1.0)
        for place, value in enumerate(reward(completions=completions, **columns) if weight else ()):
            totals[place] += weight * (value or 0.0)
    return totals


def best_of(scores: Sequence[float], samples: int) -> list[list[int]]:
    """For N = 1..`samples`, the place of the best of a reader's first N scores; the earlier in a tie.

    `scores` holds one reader's samples after another's; places count within the reader.
    """
    table = np.asarray(scores, dtype=np.float64).reshape(-1, samples)
    return [table[:, : n + 1].argmax(axis=1).tolist() for n in range(samples)]


def text_of(completion: Completion) -> str:
    return completion if isinstance(completion, str) else "".join(message["content"] for message in completion)


def queries_of(completion: Completion) -> tuple[str, ...]:
    """As served: the first line, parsed."""
    return parse_queries(text_of(completion).strip().partition("\n")[0])


def is_valid_list(text: str) -> bool:
    """One line of 1-5 queries between semicolons, all of which the parser keeps."""
    pieces = text.strip().split(";")
    return len(pieces) <= MAX_QUERIES and "\n" not in text.strip() and len(parse_queries(text)) == len(pieces)


def _copied(query: str, signals: Sequence[frozenset[str]]) -> bool:
    words = _words(query)
    return any(words and len(words & told) / len(words | told) >= NEAR_COPY_OVERLAP for told in signals)


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold()))


def _zip(completions: Sequence[Completion], column: Sequence[Sequence[str]]) -> Any:
    return zip(completions, column, strict=True)


def _log(columns: Mapping[str, Any], name: str, values: Sequence[float]) -> None:
    log: LogMetric | None = columns.get("log_metric")
    if log and values:
        log(name, fmean(values))
