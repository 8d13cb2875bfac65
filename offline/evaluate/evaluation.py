"""The protocol of `keenstream evaluate`.

- Readers: those of the examples' held-out split with something to find; training readers are refused.
- Moment: the examples' last one, t. Profiles hold events up to t, with the stream's cleaning by rules; policies named
  "cleaned" read them as the served cleaner leaves them.
- Candidate pool: articles alive at t: published in the `fresh_days` before t and not expired; with `later_news` also
  those published in the window, which then are positives too.
- Positives: articles of the pool that the reader clicked in the window after t and not before (several for each).
- What a reader has clicked before is in no ranking. Readers without positives are left out and counted.
- Recall@K = found / positives; NDCG@K with the ideal of min(K, positives); MRR over the first 50 places.
- All readers, cold ones (at most 3 signals) and warm ones apart; means with 95 % bootstrap intervals by reader, and
  differences and ratios paired by reader.
- What is random (training of sequence models, sampled lists) is repeated by seed, and a model that was trained several
  times is judged by all of its trainings; a reader's score is the mean.
- The best baseline, with which lists are fused, the best sequence model, and the weights of the lists beside that
  baseline and beside the reader's own signals are chosen on validation readers, of whom nothing else is reported.
- Best-of-N takes the list with the greatest sum of the rewards, weight 1 where none is given; it may be measured on
  fewer readers, chosen by hash, and is then compared with N = 1 on the same ones. No reward of it sees later clicks.
- With the reward `expected_hit` there is a row of the click model that it rests on: learnt from the clicks of training
  readers until t, it ranks the whole pool. It is no baseline, since it scores every article for every reader.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from offline.evaluate.baselines import baselines, own_signals
from offline.evaluate.choices import Weighing, best_by, fused, validation_means
from offline.evaluate.claims import DEEP, Finding, findings
from offline.evaluate.expectations import learn_expectations
from offline.evaluate.judge import Answers, Judge
from offline.evaluate.model_answers import model_answers
from offline.evaluate.policies import OpenPolicy, Step
from offline.evaluate.policy_names import BESIDE, BEST_OF, CLEANED, CLICK_MODEL, FUSED, OWN_SIGNALS, STORED_SIGNALS
from offline.evaluate.scores import Difference, PolicyRow, ReaderScore, differences, policy_rows
from offline.evaluate.scoring import PLACES
from offline.evaluate.sequence_settings import NAMES, SequenceSettings
from offline.evaluate.sequences import kept_sequence_answers
from offline.evaluate.task import Task, make_task, refuse_training_readers, with_cleaner
from offline.runners import RunnerSettings
from offline.training.example_set import load_split, read_manifest
from offline.training.news_index import NewsIndex, TextVectors
from offline.training.rewards import EXPECTED_HIT, HIT, Reward, make_rewards, reward_names, weighted
from schemas.clients.models import Cleaner, Embedder
from schemas.config import Api
from schemas.errors import UsageError

Models = Mapping[str, Sequence[OpenPolicy]]  # by name: one for each training


class EvaluationSettings(msgspec.Struct, frozen=True, kw_only=True):
    fresh_days: float = 3.0
    later_news: bool = False  # in the pool, too: what is published in the window
    most_readers: int = 0  # 0: all
    seeds: tuple[int, ...] = (1, 2, 3)
    samples: int = 1  # lists of each reader of a model that can write them; the first is greedy
    best_of: tuple[str, ...] = ()  # models that write so many; (): all
    best_of_readers: int = 0  # on whom best-of-N is measured; 0: all
    beyond: tuple[str, ...] = ()  # rewards that the paper does not have, which choose too
    reward_weights: dict[str, float] = {}  # by which the best of N is chosen; 1 where none is named
    cleaner_signals: int = 16  # the latest pages and searches that a cleaner judges
    sequences: SequenceSettings | None = SequenceSettings()  # None: leave those baselines out
    keep: Path | None = None  # folder of the sequence models' answers, which are then not trained again
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
    fused_weights: dict[str, float]  # by policy: of a model's lists beside a baseline, which has 1
    trainings: dict[str, int]  # of each model: its score is the mean over them
    rows: tuple[PolicyRow, ...]
    differences: tuple[Difference, ...]
    best_sequence: str = ""  # "" without sequence models
    best_of_readers: int = 0
    beyond: tuple[str, ...] = ()  # rewards of best-of-N that the paper does not have
    reward_weights: dict[str, float] = {}  # of best-of-N
    later_news: bool = False  # in the pool, too
    cleaner: str = ""  # version of its weights; "" without one
    dropped: float = 0.0  # by it: share of the pages and searches
    repeats: dict[str, tuple[float, ...]] = {}  # Recall@10 of each training, or seed, where there are several
    findings: tuple[Finding, ...] = ()  # what the paper claims, as measured here


def evaluate(
    examples: Path,
    models: Models,
    embedder: Embedder,
    settings: EvaluationSettings,
    step: Step,
    cleaner: Cleaner | None = None,
) -> Evaluation:
    """Every baseline and every model on the held-out readers of the prepared folder `examples`."""
    if unknown := set(settings.best_of) - set(models):
        raise UsageError(f"best-of-N is asked of {', '.join(sorted(unknown))}, which is no model of this evaluation")
    _check_rewards(settings)
    manifest = read_manifest(examples)
    held_out = refuse_training_readers(load_split(examples, "held_out"))
    task = make_task(
        examples,
        held_out,
        embedder,
        fresh_days=settings.fresh_days,
        most_readers=settings.most_readers,
        best_of_readers=settings.best_of_readers,
        later_news=settings.later_news,
    )
    task = with_cleaner(task, cleaner, latest=settings.cleaner_signals) if cleaner else task
    judge = Judge(task=task, embedder=embedder, api=settings.api, runner=settings.runner, step=step)
    answers = _baseline_answers(task, settings, step)
    names = tuple(answers)
    means = validation_means(judge, answers)
    best, sequence = best_by(means, names), best_by(means, NAMES)
    if task.cleaned:
        answers |= {f"{name}{CLEANED}": [baseline(task.cleaned)] for name, baseline in own_signals().items()}
    rewards = _rewards(answers, models, examples, judge, settings)
    weights = _add_models(answers, models, rewards, best, judge, settings)
    judged = judge.judge(task.readers, answers)
    seed = settings.seeds[0]
    return Evaluation(
        protocol=__doc__ or "",
        content_sha256=manifest.content_sha256,
        at_ms=held_out[0].at_ms,
        until_ms=held_out[0].until_ms,
        pool=len(task.news.pool),
        readers=len(task.readers),
        without_positives=task.without_positives,
        positives_per_reader=round(sum(len(reader.positives) for reader in task.readers) / len(task.readers), 2),
        seeds=settings.seeds,
        best_baseline=best,
        fused_weights=weights,
        trainings={name: len(trainings) for name, trainings in models.items()},
        rows=tuple(policy_rows(judged.scores, seed=seed)),
        differences=tuple(_differences(judged.scores, names, list(models), best, seed)),
        best_sequence=sequence,
        best_of_readers=len(task.best_of),
        beyond=settings.beyond,
        reward_weights=settings.reward_weights,
        later_news=settings.later_news,
        cleaner=task.cleaner,
        dropped=task.dropped,
        repeats=judged.repeats,
        findings=tuple(findings(judged.scores, best, sequence, seed=seed)),
    )


def _check_rewards(settings: EvaluationSettings) -> None:
    """UsageError at once for a misspelt name, and for a reward that looks at what is to be found."""
    weighted(reward_names(settings.beyond), settings.reward_weights)
    if HIT in settings.beyond:
        raise UsageError(f"the reward {HIT} looks at later clicks and cannot choose lists: use {EXPECTED_HIT}")


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
            found[name].append(
                kept_sequence_answers(name, task.news.clicks, users, pool, PLACES, seeded, settings.keep, step)
            )
    return found


def _rewards(
    answers: Answers, models: Models, examples: Path, judge: Judge, settings: EvaluationSettings
) -> dict[str, Reward]:
    """Of best-of-N. The click model that `expected_hit` needs is added to `answers`."""
    texts, rewards = TextVectors(judge.embedder), dict[str, Reward]()
    if models:
        rewards = make_rewards(NewsIndex(judge.task.news.pool, texts), beyond=settings.beyond)
    if EXPECTED_HIT in settings.beyond:
        learnt = learn_expectations(examples, judge.task, texts, PLACES, judge.step)
        answers[CLICK_MODEL], rewards[EXPECTED_HIT] = [learnt.answers], learnt.reward
    return rewards


def _add_models(
    answers: Answers,
    models: Models,
    rewards: Mapping[str, Reward],
    best: str,
    judge: Judge,
    settings: EvaluationSettings,
) -> dict[str, float]:
    """To `answers`, alone and beside two baselines: the best one, and the signals that the API serves too."""
    task, weights = judge.task, dict[str, float]()
    for name, trainings in models.items():
        samples = settings.samples if name in (settings.best_of or models) else 1
        written = model_answers(
            name,
            trainings,
            task,
            rewards,
            weights=settings.reward_weights,
            samples=samples,
            seeds=settings.seeds,
            step=judge.step,
        )
        answers |= written.answers
        for suffix, other in ((FUSED, best), (BESIDE, STORED_SIGNALS)):
            judge.step(f"weight of {name} beside {other}")
            weight = weights[f"{name}{suffix}"] = Weighing(judge, answers[other]).weight_of(written.validation)
            answers[f"{name}{suffix}"] = fused(answers[name], answers[other], weight)
    return weights


def _differences(
    scores: Mapping[str, Sequence[ReaderScore]], names: Sequence[str], models: Sequence[str], best: str, seed: int
) -> list[Difference]:
    """Models against everything, fused ones against the best baseline, best-of-N against the one list, cleaned
    against as they were."""
    others = (*names, *({CLICK_MODEL} & scores.keys()), *models)
    pairs = [(model, other) for model in models for other in others if model != other]
    pairs += [(f"{model}{FUSED}", best) for model in models]
    pairs += [(f"{model}{BESIDE}", STORED_SIGNALS) for model in models]
    pairs += [(name, model) for model in models for name in scores if name.startswith(model + BEST_OF.format(""))]
    pairs += [(name, name.removesuffix(CLEANED)) for name in scores if name.endswith(CLEANED)]
    found = [row for ours, theirs in pairs for row in differences(scores[ours], scores[theirs], seed=seed)]
    signals = [(model, name) for model in models for name in names if name.startswith(OWN_SIGNALS)]
    signals += [(f"{model}{BESIDE}", STORED_SIGNALS) for model in models]
    for ours, theirs in signals:
        found += differences(scores[ours], scores[theirs], seed=seed, metric=DEEP)
    return found
