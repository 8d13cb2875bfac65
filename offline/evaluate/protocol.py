"""The protocol behind every quality figure: one simulation, split at one moment, every system on the same readers.

A reader's profile is folded, cleaned, from what had been delivered by that moment; positives are the articles that this
reader clicked later and had not clicked before. Found may be every article that was still shown at that moment (three
days old at most) or appeared after it: stored queries keep finding fresh news. Half of the readers, by hash, are there
to choose settings; the others report.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from math import inf

import msgspec

from offline.evaluate.cleaning import NO_NOISE, RULES_ALONE, Cleaned, Gain, gain_of, without_true_noise
from offline.evaluate.held_out import HeldOutReader, Split, hold_out, pool_of
from offline.evaluate.metrics import Estimate, estimate, ndcg_at_k, paired_difference, recall_at_k, reciprocal_rank
from offline.evaluate.retrieval import ExactIndex, Finder, VectorCache
from offline.evaluate.systems import (
    QueriesOf,
    Rank,
    Search,
    fused,
    latest_click,
    own_signals,
    popularity,
    popularity_told,
    student_lists,
    true_interests,
)
from offline.simulate import Delivery, SimulationSettings, build_world, simulate_world
from offline.simulate.impressions import FRESH_MS
from offline.simulate.readers import make_readers
from offline.simulate.sessions import NOISE
from offline.simulate.truth import ReaderTruth, reader_truth
from schemas.article import Article, embedded_text
from schemas.clients.models import Completion, Student
from schemas.clients.prompt_probe import prompt_of_served
from schemas.config import Config
from schemas.prompt import PromptVersion, render_prompt
from schemas.queries import parse_queries

HISTORY_SHARE = 0.75  # of the simulated time
PLACES = 50  # the longest list that is judged
SERVED = "as served: student + signals"
STUDENT, SIGNALS, LATEST = "student's lists alone", "own signals alone", "latest click alone"
POPULARITY, TOLD, ORACLE = "popularity", "popularity, told the future", "true interests (oracle)"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One system at one width of the gap."""

    gap: float
    system: str
    recall_at_10: Estimate
    recall_at_50: Estimate
    ndcg_at_10: Estimate
    mrr: Estimate
    served_minus_this: Estimate | None = None  # Recall@10, paired by reader


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """Recall@10 of tuning readers with one weight for the student's lists; the signals' weight is the setting's."""

    gap: float
    student_weight: float
    recall_at_10: Estimate


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One simulation, split and indexed."""

    gap: float
    seed: int  # of the intervals
    config: Config
    split: Split
    pool: Sequence[Article]
    truths: dict[str, ReaderTruth]
    search: Search
    noise: frozenset[str]  # ids of the events that are about nothing


async def build_task(
    settings: SimulationSettings, articles: Sequence[Article] | None, config: Config, cache: VectorCache
) -> Task:
    """Simulates, splits, embeds what may be found."""
    world = build_world(settings, articles)
    readers = make_readers(settings, world)
    truths = {reader.user_id: reader_truth(reader, world.topics) for reader in readers}
    at_ms = settings.start_ms + int(settings.span_ms * HISTORY_SHARE)
    deliveries = (row for row in simulate_world(settings, world, readers) if isinstance(row, Delivery))
    noise: set[str] = set()
    split = hold_out(_noting_noise(deliveries, noise), at_ms, config.profiles)
    pool = pool_of((story.article for story in world.stories), at_ms, fresh_ms=FRESH_MS, until_ms=inf)
    texts = [embedded_text(article) for article in pool]
    await cache.add(texts)
    finder = Finder(ExactIndex(pool, cache.of(texts)), cache, depth=max(PLACES, config.api.articles_per_query))
    return Task(
        gap=settings.gap,
        seed=settings.seed,
        config=config,
        split=split,
        pool=pool,
        truths=truths,
        search=Search(finder, config.api),
        noise=frozenset(noise),
    )


def _noting_noise(deliveries: Iterable[Delivery], noise: set[str]) -> Iterator[Delivery]:
    for delivery in deliveries:
        if delivery.origin == NOISE:
            noise.add(delivery.event.event_id)
        yield delivery


class Lists(msgspec.Struct, frozen=True):
    """What a student wrote for some readers; an empty list is an unusable one."""

    of_reader: dict[str, tuple[str, ...]]
    version: str  # of the weights
    prompt_version: str

    @property
    def unusable(self) -> float:
        return sum(not queries for queries in self.of_reader.values()) / max(1, len(self.of_reader))


async def write_lists(student: Student, readers: Sequence[HeldOutReader], *, max_queries: int) -> Lists:
    """As the stream does: by the prompt that the model reads, greedy, and once more, sampled, for what cannot be used.

    Raises the student's error.
    """
    prompt = await prompt_of_served(student)
    first = await _ask(student, prompt, readers, max_queries, 0)
    again = [reader for reader in readers if not first.of_reader[reader.user_id]]
    second = await _ask(student, prompt, again, max_queries, zlib.crc32(b"again"))
    return Lists(first.of_reader | second.of_reader, first.version, prompt)


async def _ask(
    student: Student, prompt: PromptVersion, readers: Sequence[HeldOutReader], max_queries: int, seed: int
) -> Lists:
    answers = await student.write([render_prompt(reader.profile, prompt) for reader in readers], seed=seed)
    found: dict[str, tuple[str, ...]] = {}
    version = ""
    for reader, answer in zip(readers, answers, strict=True):
        if not isinstance(answer, Completion):
            raise answer
        found[reader.user_id] = parse_queries(answer.texts[0], limit=max_queries)
        version = answer.model_version
    return Lists(found, version, prompt)


async def rows(task: Task, readers: Sequence[HeldOutReader], lists: Lists | None) -> list[Row]:
    """Every system on the same readers; those of the student only with its lists."""
    ranks = await _systems(task, readers, lists)
    tens = {name: [rank(reader, 10) for reader in readers] for name, rank in ranks.items()}
    served = _recalls(tens[SERVED], readers, 10) if lists else None
    found: list[Row] = []
    for name, rank in ranks.items():
        fifties = [rank(reader, PLACES) for reader in readers]
        found.append(_row(task, name, readers, tens[name], fifties, None if name == SERVED else served))
    return found


async def cleaning_rows(task: Task, readers: Sequence[HeldOutReader], cleaned: Cleaned) -> tuple[list[Row], list[Gain]]:
    """The own signals of `readers`, which only the rules have cleaned, beside those of `cleaned`, which are served."""
    sides = {RULES_ALONE: readers, SIGNALS: cleaned.readers, NO_NOISE: without_true_noise(readers, task.noise)}
    ranked = {name: (await task.search.system(_signals(task), rows), rows) for name, rows in sides.items()}
    found = []
    for name in (RULES_ALONE, NO_NOISE):
        rank, of = ranked[name]
        tens, fifties = ([rank(reader, k) for reader in of] for k in (10, PLACES))
        found.append(_row(task, name, of, tens, fifties, None))
    before = ranked.pop(RULES_ALONE)
    gains = [
        gain_of(name, task.gap, before, after, seed=task.seed, version=cleaned.version if name == SIGNALS else "")
        for name, after in ranked.items()
    ]
    return found, gains


async def tune(
    task: Task, readers: Sequence[HeldOutReader], lists: Lists, student_weights: Sequence[float]
) -> list[Tuned]:
    """Recall@10 of these readers for each weight of the student's lists beside the signals."""
    found: list[Tuned] = []
    for weight in student_weights:
        rank = await task.search.system(_served(task, lists, weight), readers)
        mean = estimate(_recalls([rank(reader, 10) for reader in readers], readers, 10), seed=task.seed)
        found.append(Tuned(gap=task.gap, student_weight=weight, recall_at_10=mean))
    return found


def _signals(task: Task) -> QueriesOf:
    return own_signals(task.config.interests.signal_queries)


def _served(task: Task, lists: Lists, student_weight: float) -> QueriesOf:
    signal_weight = task.config.api.signal_weight
    student = student_lists(lists.of_reader)
    return fused(student, _signals(task), student_weight=student_weight, signal_weight=signal_weight)


async def _systems(task: Task, readers: Sequence[HeldOutReader], lists: Lists | None) -> dict[str, Rank]:
    searching: dict[str, QueriesOf] = {}
    if lists:
        searching[SERVED] = _served(task, lists, task.config.api.student_weight)
        searching[STUDENT] = student_lists(lists.of_reader)
    searching |= {SIGNALS: _signals(task), LATEST: latest_click, ORACLE: true_interests(task.truths, task.split.at_ms)}
    ranks = {name: await task.search.system(queries_of, readers) for name, queries_of in searching.items()}
    pool = frozenset(article.article_id for article in task.pool)
    return ranks | {POPULARITY: popularity(task.split, pool), TOLD: popularity_told(task.split, pool, readers)}


def _row(
    task: Task,
    name: str,
    readers: Sequence[HeldOutReader],
    tens: Sequence[list[str]],
    fifties: Sequence[list[str]],
    served: Sequence[float] | None,
) -> Row:
    recalls = _recalls(tens, readers, 10)
    pairs = [(ranked, reader.positives) for ranked, reader in zip(tens, readers, strict=True)]
    return Row(
        gap=task.gap,
        system=name,
        recall_at_10=estimate(recalls, seed=task.seed),
        recall_at_50=estimate(_recalls(fifties, readers, PLACES), seed=task.seed),
        ndcg_at_10=estimate([ndcg_at_k(ranked, wanted, 10) for ranked, wanted in pairs], seed=task.seed),
        mrr=estimate([reciprocal_rank(ranked, wanted) for ranked, wanted in pairs], seed=task.seed),
        served_minus_this=paired_difference(served, recalls, seed=task.seed) if served else None,
    )


def _recalls(lists: Sequence[list[str]], readers: Sequence[HeldOutReader], k: int) -> list[float]:
    return [recall_at_k(ranked, reader.positives, k) for ranked, reader in zip(lists, readers, strict=True)]
