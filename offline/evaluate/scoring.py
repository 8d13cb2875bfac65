"""The Beam job of an evaluation: (policy, readers) pairs, each searched for and scored by a worker.

    policies x chunks of readers ─▶ Search and score ─▶ (all) ─▶ Write the scores

Elements are names of files and numbers of rows. A worker opens the news once: articles, and their vectors
by memory map.
"""

import asyncio
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import apache_beam as beam
import msgspec
import numpy as np

from offline.evaluate.answers import Answer, ranked_by, read_answers
from offline.evaluate.held_out import HeldOutReader
from offline.evaluate.retrieval import ExactIndex, Finder, VectorCache, Vectors
from offline.evaluate.scores import ReaderScore, score
from offline.runners import RunnerSettings, run_beam
from schemas.article import Article
from schemas.clients.models import Embedder
from schemas.config import Api
from schemas.profile import seen_articles, signal_count

PLACES: Final = 50  # the longest list that is judged
CHUNK_READERS: Final = 250


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    policy: str
    answers: str  # path
    first: int  # of the readers
    last: int


class ScoringPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What all workers share. `scratch` is a folder that each of them sees."""

    scratch: str
    policies: dict[str, str]  # name -> path of its answers
    readers: int
    embedder: Embedder  # pickles
    api: Api

    @property
    def readers_path(self) -> Path:
        return Path(self.scratch) / "readers.msgpack"

    @property
    def pool_path(self) -> Path:
        return Path(self.scratch) / "pool.msgpack"

    @property
    def vectors_path(self) -> Path:
        return Path(self.scratch) / "pool.npy"

    @property
    def scores_path(self) -> Path:
        return Path(self.scratch) / "scores.msgpack"


class Scorer:
    """A worker's own copy of the news and the readers."""

    def __init__(self, plan: ScoringPlan) -> None:
        self._plan = plan
        self._readers = msgspec.msgpack.decode(plan.readers_path.read_bytes(), type=list[HeldOutReader])
        pool = msgspec.msgpack.decode(plan.pool_path.read_bytes(), type=list[Article])
        cache = VectorCache(plan.embedder)
        index = ExactIndex(pool, np.load(plan.vectors_path, mmap_mode="r"))
        self._finder = Finder(index, cache, depth=max(PLACES, plan.api.articles_per_query))

    def score(self, chunk: Chunk) -> list[ReaderScore]:
        """A reader that the policy has no answer for finds nothing."""
        answers = read_answers(Path(chunk.answers))
        readers = self._readers[chunk.first : chunk.last]
        given = [answers.get(reader.user_id, Answer(user_id=reader.user_id)) for reader in readers]
        asyncio.run(self._finder.add(query.text for answer in given for query in answer.queries))
        return [self._score(chunk.policy, *pair) for pair in zip(readers, given, strict=True)]

    def _score(self, policy: str, reader: HeldOutReader, answer: Answer) -> ReaderScore:
        seen = seen_articles(reader.profile)
        ranked = ranked_by(answer, self._finder, self._plan.api, k=PLACES, seen=seen)
        return score(policy, reader.user_id, signal_count(reader.profile), ranked, reader.positives)


def write_inputs(
    plan: ScoringPlan, readers: Iterable[HeldOutReader], pool: Iterable[Article], vectors: Vectors
) -> None:
    """What the workers open; `vectors` are those of `pool`, in its order."""
    plan.readers_path.write_bytes(msgspec.msgpack.encode(list(readers)))
    plan.pool_path.write_bytes(msgspec.msgpack.encode(list(pool)))
    np.save(plan.vectors_path, vectors)


def score_policies(plan: ScoringPlan, runner: RunnerSettings) -> list[ReaderScore]:
    """Every policy on every reader; blocks until the runner is done."""
    run_beam(lambda pipeline: build_pipeline(pipeline, plan), runner)
    return msgspec.msgpack.decode(plan.scores_path.read_bytes(), type=list[ReaderScore])


def build_pipeline(pipeline: beam.Pipeline, plan: ScoringPlan) -> Any:
    """Ends in `plan.scores_path`."""
    return (
        pipeline
        | "Policies and readers" >> beam.Create(list(chunks(plan)), reshuffle=True)
        | "Search and score" >> beam.ParDo(_Score(plan))
        | "Collect the scores" >> beam.CombineGlobally(beam.combiners.ToListCombineFn())
        | "Write the scores" >> beam.Map(write_scores, str(plan.scores_path))
    )


def chunks(plan: ScoringPlan) -> Iterator[Chunk]:
    for policy, path in plan.policies.items():
        for first in range(0, plan.readers, CHUNK_READERS):
            yield Chunk(policy=policy, answers=path, first=first, last=min(plan.readers, first + CHUNK_READERS))


class _Score(beam.DoFn):  # type: ignore[misc]  # Beam is untyped here
    def __init__(self, plan: ScoringPlan) -> None:
        self._plan = plan

    def setup(self) -> None:
        self._scorer = Scorer(self._plan)

    def process(self, chunk: Chunk) -> Iterator[list[ReaderScore]]:
        yield self._scorer.score(chunk)


def write_scores(parts: Iterable[Iterable[ReaderScore]], path: str) -> None:
    rows = sorted((row for part in parts for row in part), key=lambda row: (row.policy, row.user_id))
    scratch = Path(f"{path}.{os.getpid()}.tmp")
    scratch.write_bytes(msgspec.msgpack.encode(rows))
    scratch.replace(path)
