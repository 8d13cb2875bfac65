"""The protocol of `keenstream evaluate`.

- Readers: those of the examples' held-out split with something to find; training readers are refused.
- Moment: the examples' last one, t. Profiles hold events up to t, with the stream's cleaning.
- Candidate pool: articles alive at t: published in the `fresh_days` before t and not expired.
- Positives: articles of the pool that the reader clicked in the window after t and not before (several for each).
- What a reader has clicked before is in no ranking. Readers without positives are left out and counted.
- Recall@K = found / positives; NDCG@K with the ideal of min(K, positives); MRR over the first 50 places.
- All readers, cold ones (at most 3 signals) and warm ones apart; means with 95 % bootstrap intervals by reader, and
  differences and ratios paired by reader.
- What is random (training of sequence models, sampled lists) is repeated by seed, and a model that was trained several
  times is judged by all of its trainings; a reader's score is the mean.
- The best baseline, with which lists are fused, and the weight of the lists beside it are chosen on validation readers,
  of whom nothing else is reported.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from offline.evaluate.answers import Answer, fused_answers, write_answers
from offline.evaluate.baselines import OWN_SIGNALS, baselines
from offline.evaluate.held_out import HeldOutReader
from offline.evaluate.policies import Completions, best_lists, first_lists
from offline.evaluate.scores import (
    KEY_METRIC,
    METRICS,
    Difference,
    PolicyRow,
    ReaderScore,
    by_policy,
    differences,
    policy_rows,
    values_of,
)
from offline.evaluate.scoring import PLACES, ScoringPlan, score_policies, write_inputs
from offline.evaluate.sequences import NAMES, SequenceSettings, sequence_answers
from offline.evaluate.task import Task, make_task, refuse_training_readers
from offline.experiments.runners import RunnerSettings
from offline.training.example_set import load_split, read_manifest
from offline.training.news_index import NewsIndex, TextVectors
from offline.training.rewards import Reward, make_rewards
from schemas.article import embedded_text
from schemas.clients.models import Embedder
from schemas.config import Api
from schemas.errors import UsageError

FUSED: Final = " + best baseline"
BEST_OF: Final = ", best of {}"
FUSED_WEIGHTS: Final = (0.25, 0.5, 1.0, 2.0)  # of the lists, where the best baseline has 1
SIGNALS_METRIC: Final = "recall_at_50"  # in which lists are compared with the reader's own signals as well

Write = Callable[[Sequence[HeldOutReader], int], Completions]  # readers, seed -> texts
Step = Callable[[str], None]
Models = Mapping[str, Sequence[Write]]  # by name: one for each training
Answers = dict[str, list[list[Answer]]]  # by policy: one list of answers for each seed and training


class EvaluationSettings(msgspec.Struct, frozen=True, kw_only=True):
    fresh_days: float = 3.0
    most_readers: int = 0  # 0: all
    seeds: tuple[int, ...] = (1, 2, 3)
    sequences: SequenceSettings | None = SequenceSettings()  # None: leave those baselines out
    api: Api = Api()
    runner: RunnerSettings = RunnerSettings()


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was measured, and on what."""

    protocol: str
    content_sha256: str  # of the examples
    at_ms: int
    until_ms: int
    pool: int
    readers: int
    without_positives: int
    positives_per_reader: float
    seeds: tuple[int, ...]
    best_baseline: str
    fused_weights: dict[str, float]  # of each model's lists beside the best baseline
    trainings: dict[str, int]  # of each model: its score is the mean over them
    rows: tuple[PolicyRow, ...]
    differences: tuple[Difference, ...]


def evaluate(
    examples: Path, models: Models, embedder: Embedder, settings: EvaluationSettings, step: Step
) -> Evaluation:
    """Every baseline and every model on the held-out readers of the prepared folder `examples`."""
    manifest = read_manifest(examples)
    held_out = refuse_training_readers(load_split(examples, "held_out"))
    task = make_task(examples, held_out, embedder, fresh_days=settings.fresh_days, most_readers=settings.most_readers)
    answers = _baseline_answers(task, settings, step)
    names = tuple(answers)
    rewards = make_rewards(NewsIndex(task.news.pool, TextVectors(embedder))) if models else {}
    for name, trainings in models.items():
        step(f"lists of {name}")
        answers |= _model_answers(name, trainings, task, rewards, settings.seeds)
    best = _best_baseline(task, {name: answers[name] for name in names}, embedder, settings, step)
    weights = {}
    for name, trainings in models.items():
        step(f"weight of {name} beside {best}")
        weights[name] = _fused_weight(trainings[0], task, answers[best], embedder, settings, step)
        answers[f"{name}{FUSED}"] = _fused(answers[name], answers[best], weights[name])
    scores = _scores(task.readers, answers, task, embedder, settings, step)
    positives = sum(len(reader.positives) for reader in task.readers) / len(task.readers)
    return Evaluation(
        protocol=__doc__ or "",
        content_sha256=manifest.content_sha256,
        at_ms=held_out[0].at_ms,
        until_ms=held_out[0].until_ms,
        pool=len(task.news.pool),
        readers=len(task.readers),
        without_positives=task.without_positives,
        positives_per_reader=round(positives, 2),
        seeds=settings.seeds,
        best_baseline=best,
        fused_weights=weights,
        trainings={name: len(trainings) for name, trainings in models.items()},
        rows=tuple(policy_rows(scores, seed=settings.seeds[0])),
        differences=tuple(_differences(scores, names, list(models), best, settings.seeds[0])),
    )


def _baseline_answers(task: Task, settings: EvaluationSettings, step: Step) -> Answers:
    found: Answers = {}
    for name, baseline in baselines(task.news, PLACES).items():
        step(name)
        found[name] = [baseline(task.everybody)]
    if settings.sequences is None:
        return found
    users = [reader.user_id for reader in task.everybody]
    pool = [article.article_id for article in task.news.pool]
    for name in NAMES:
        found[name] = []
        for seed in settings.seeds:
            step(f"{name}, seed {seed}")
            seeded = msgspec.structs.replace(settings.sequences, seed=seed)
            found[name].append(sequence_answers(name, task.news.clicks, users, pool, PLACES, seeded))
    return found


def _model_answers(
    name: str, trainings: Sequence[Write], task: Task, rewards: Mapping[str, Reward], seeds: Sequence[int]
) -> Answers:
    """Of each training: N = 1, and best-of-N where several lists were written."""
    found: Answers = {name: []}
    for write in trainings:
        for seed in seeds:
            completions = _lists_of_all(name, write(task.readers, seed), task.readers)
            if seed == seeds[0]:
                found[name].append(first_lists(completions))
            if min(map(len, completions.values())) == 1:
                break
            for n, answers in best_lists(completions, task.readers, rewards).items():
                if n > 1:
                    found.setdefault(name + BEST_OF.format(n), []).append(answers)
    return found


def _lists_of_all(name: str, completions: Completions, readers: Sequence[HeldOutReader]) -> Completions:
    """Of these readers and no others; UsageError when some have none."""
    if missing := [reader.user_id for reader in readers if not completions.get(reader.user_id)]:
        raise UsageError(f"{name} has no list for {len(missing)} readers, {missing[0]} among them")
    return {reader.user_id: completions[reader.user_id] for reader in readers}


def _best_baseline(task: Task, answers: Answers, embedder: Embedder, settings: EvaluationSettings, step: Step) -> str:
    """By Recall@10 of validation readers; the first one by name where there is none of these."""
    if not task.validation:
        return min(answers)
    scores = _scores(task.validation, answers, task, embedder, settings, step)
    means = {name: float(values_of(rows, KEY_METRIC).mean()) for name, rows in scores.items()}
    return max(sorted(means), key=means.__getitem__)


def _fused(
    lists: Sequence[Sequence[Answer]], baseline: Sequence[Sequence[Answer]], weight: float
) -> list[list[Answer]]:
    """Each training of the model with each seed of the baseline."""
    pairs = product(map(_by_reader, lists), map(_by_reader, baseline))
    return [fused_answers(ours, theirs, weight) for ours, theirs in pairs]


def _fused_weight(
    write: Write,
    task: Task,
    baseline: Sequence[Sequence[Answer]],
    embedder: Embedder,
    settings: EvaluationSettings,
    step: Step,
) -> float:
    """By Recall@10 of validation readers; 1 where there are none, or no lists for them."""
    completions = write(task.validation, settings.seeds[0]) if task.validation else {}
    known = [reader for reader in task.validation if completions.get(reader.user_id)]
    if not known:
        return 1.0
    lists = first_lists({reader.user_id: completions[reader.user_id] for reader in known})
    fused = {str(weight): _fused([lists], baseline, weight) for weight in FUSED_WEIGHTS}
    scores = _scores(known, fused, task, embedder, settings, step)
    return max(FUSED_WEIGHTS, key=lambda weight: (values_of(scores[str(weight)], KEY_METRIC).mean(), -abs(weight - 1)))


def _scores(
    readers: Sequence[HeldOutReader],
    answers: Answers,
    task: Task,
    embedder: Embedder,
    settings: EvaluationSettings,
    step: Step,
) -> dict[str, list[ReaderScore]]:
    """By policy, each reader's mean over the seeds."""
    step(f"scoring {len(answers)} policies on {len(readers)} readers")
    with TemporaryDirectory(prefix="keenstream-evaluate-") as scratch:
        paths, names = {}, {}
        for number, (name, by_seed) in enumerate(answers.items()):
            for seed, rows in enumerate(by_seed):
                key = f"{number:03d}-{seed}"
                names[key], paths[key] = name, str(Path(scratch) / f"{key}.jsonl")
                write_answers(Path(paths[key]), rows)
        plan = ScoringPlan(scratch=scratch, policies=paths, readers=len(readers), embedder=embedder, api=settings.api)
        pool = task.news.pool
        write_inputs(plan, readers, pool, task.news.cache.of([embedded_text(article) for article in pool]))
        scores = score_policies(plan, settings.runner)
    return by_policy(mean_over_seeds([msgspec.structs.replace(row, policy=names[row.policy]) for row in scores]))


def mean_over_seeds(scores: Sequence[ReaderScore]) -> list[ReaderScore]:
    """One score for each policy and reader."""
    groups: dict[tuple[str, str], list[ReaderScore]] = {}
    for row in scores:
        groups.setdefault((row.policy, row.user_id), []).append(row)
    return [
        msgspec.structs.replace(rows[0], **{name: float(values_of(rows, name).mean()) for name in METRICS})
        for rows in groups.values()
    ]


def _differences(
    scores: Mapping[str, Sequence[ReaderScore]], names: Sequence[str], models: Sequence[str], best: str, seed: int
) -> list[Difference]:
    """Models against everything, fused ones against the best baseline, best-of-N against the one list."""
    pairs = [(model, other) for model in models for other in (*names, *models) if model != other]
    pairs += [(f"{model}{FUSED}", best) for model in models]
    pairs += [(name, model) for model in models for name in scores if name.startswith(model + BEST_OF.format(""))]
    found = [row for ours, theirs in pairs for row in differences(scores[ours], scores[theirs], seed=seed)]
    signals = [(model, name) for model in models for name in names if name.startswith(OWN_SIGNALS)]
    for ours, theirs in signals:
        found += differences(scores[ours], scores[theirs], seed=seed, metric=SIGNALS_METRIC)
    return found


def _by_reader(answers: Sequence[Answer]) -> dict[str, Answer]:
    return {answer.user_id: answer for answer in answers}
