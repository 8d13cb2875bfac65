"""Answers of policies to scores of readers: files for the Beam job, and the mean over what was repeated."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import gettempdir

import msgspec

from offline.evaluate.answers import Answer, write_answers
from offline.evaluate.held_out import HeldOutReader
from offline.evaluate.scores import KEY_METRIC, METRICS, ReaderScore, by_policy, values_of
from offline.evaluate.scoring import ScoringPlan, score_policies, write_inputs
from offline.evaluate.task import Task
from offline.passing_folder import passing_folder
from offline.runners import RunnerSettings
from schemas.article import embedded_text
from schemas.clients.models import Embedder
from schemas.config import Api

Answers = dict[str, list[list[Answer]]]  # by policy: one list of answers for each seed and training


class Judged(msgspec.Struct, frozen=True):
    """Scores by policy, and Recall@10 of each repetition where there are several."""

    scores: dict[str, list[ReaderScore]]
    repeats: dict[str, tuple[float, ...]]

    def mean(self, policy: str) -> float:
        return float(values_of(self.scores[policy], KEY_METRIC).mean())


class Judge(msgspec.Struct, frozen=True, kw_only=True):
    """Judges on the news of a task."""

    task: Task
    embedder: Embedder
    api: Api
    runner: RunnerSettings
    step: Callable[[str], None]

    def judge(self, readers: Sequence[HeldOutReader], answers: Answers) -> Judged:
        """Each policy on those of `readers` for whom it has an answer, though it be an empty one."""
        self.step(f"scoring {len(answers)} policies on {len(readers)} readers")
        with passing_folder(Path(gettempdir()), "keenstream-evaluate-") as scratch:
            paths, names = _written(scratch, answers)
            plan = ScoringPlan(
                scratch=str(scratch), policies=paths, readers=len(readers), embedder=self.embedder, api=self.api
            )
            pool = self.task.news.pool
            write_inputs(plan, readers, pool, self.task.news.cache.of([embedded_text(article) for article in pool]))
            rows = score_policies(plan, self.runner)
        answered = {key: {answer.user_id for answer in answers[names[key][0]][names[key][1]]} for key in paths}
        return _judged(by_policy([row for row in rows if row.user_id in answered[row.policy]]), names)


def _written(folder: Path, answers: Answers) -> tuple[dict[str, str], dict[str, tuple[str, int]]]:
    """Path of each repetition, and which policy's which repetition it is."""
    paths, names = {}, {}
    for number, (name, repetitions) in enumerate(answers.items()):
        for repetition, rows in enumerate(repetitions):
            key = f"{number:03d}-{repetition}"
            names[key], paths[key] = (name, repetition), str(folder / f"{key}.jsonl")
            write_answers(Path(paths[key]), rows)
    return paths, names


def _judged(by_key: Mapping[str, Sequence[ReaderScore]], names: Mapping[str, tuple[str, int]]) -> Judged:
    repeats: dict[str, list[float]] = {}
    for key, rows in by_key.items():
        repeats.setdefault(names[key][0], []).append(float(values_of(rows, KEY_METRIC).mean()))
    named = [msgspec.structs.replace(row, policy=names[key][0]) for key, rows in by_key.items() for row in rows]
    means = {name: tuple(values) for name, values in repeats.items() if len(values) > 1}
    return Judged(by_policy(mean_over_repeats(named)), means)


def mean_over_repeats(scores: Sequence[ReaderScore]) -> list[ReaderScore]:
    """One score for each policy and reader."""
    groups: dict[tuple[str, str], list[ReaderScore]] = {}
    for row in scores:
        groups.setdefault((row.policy, row.user_id), []).append(row)
    return [
        msgspec.structs.replace(rows[0], **{name: float(values_of(rows, name).mean()) for name in METRICS})
        for rows in groups.values()
    ]
