"""What is chosen on validation readers, and on nobody else: the best baseline, and how much lists weigh beside it."""

from collections.abc import Collection, Mapping, Sequence
from itertools import product
from typing import Final

import msgspec

from offline.evaluate.answers import Answer, fused_answers
from offline.evaluate.judge import Answers, Judge

FUSED_WEIGHTS: Final = (0.25, 0.5, 1.0, 2.0)  # of the lists, where the best baseline has 1


def validation_means(judge: Judge, answers: Answers) -> dict[str, float]:
    """Recall@10 of validation readers by policy, in the order of the names; 0 where there are no such readers."""
    if not judge.task.validation:
        return dict.fromkeys(sorted(answers), 0.0)
    found = judge.judge(judge.task.validation, answers)
    return {name: found.mean(name) for name in sorted(answers)}


def best_by(means: Mapping[str, float], names: Collection[str]) -> str:
    """Of `names`, the first of equal ones; "" when none is among the means."""
    known = [name for name in means if name in names]
    return max(known, key=means.__getitem__) if known else ""


def fused(lists: Sequence[Sequence[Answer]], baseline: Sequence[Sequence[Answer]], weight: float) -> list[list[Answer]]:
    """Each training of the model with each seed of the baseline."""
    pairs = product(map(_by_reader, lists), map(_by_reader, baseline))
    return [fused_answers(ours, theirs, weight) for ours, theirs in pairs]


class Weighing(msgspec.Struct, frozen=True):
    """Of lists beside a baseline."""

    judge: Judge
    baseline: Sequence[Sequence[Answer]]

    def weight_of(self, lists: Sequence[Answer]) -> float:
        """By Recall@10 of the validation readers who have one; 1 where nobody has."""
        known = {answer.user_id for answer in lists}
        readers = [reader for reader in self.judge.task.validation if reader.user_id in known]
        if not readers:
            return 1.0
        tried = {str(weight): fused([lists], self.baseline, weight) for weight in FUSED_WEIGHTS}
        found = self.judge.judge(readers, tried)
        return max(FUSED_WEIGHTS, key=lambda weight: (found.mean(str(weight)), -abs(weight - 1)))


def _by_reader(answers: Sequence[Answer]) -> Mapping[str, Answer]:
    return {answer.user_id: answer for answer in answers}
