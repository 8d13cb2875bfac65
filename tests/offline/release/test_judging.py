from pathlib import Path

import pytest

from offline.evaluate.evaluation import EvaluationSettings, evaluate
from offline.release.judging import held_out_of
from offline.release.releases import BESIDE_SIGNALS, HeldOut
from offline.training import gates
from offline.training.material import SIGNALS
from schemas.clients.memory_models import MemoryEmbedder
from schemas.config import Api

SETTINGS = Api()


def judged(examples: Path, api: Api = SETTINGS, **settings: int) -> HeldOut:
    return held_out_of(examples, MemoryEmbedder(), api, lambda step: None, most=1_000, **settings)


def test_signals_are_judged_as_evaluate_judges_them(examples: Path) -> None:
    held_out = judged(examples, compared=3)
    scores = held_out.score([()] * len(held_out.prompts))
    evaluation = evaluate(examples, {}, MemoryEmbedder(), EvaluationSettings(sequences=None), lambda step: None)
    row = next(row for row in evaluation.rows if (row.policy, row.group) == ("own signals (8)", "all"))
    assert len(held_out.prompts) == evaluation.readers > held_out.compared
    assert scores[SIGNALS] == pytest.approx(row.metrics["recall_at_10"].mean)


def test_lists_that_find_nothing_leave_the_signals_as_they_are(examples: Path) -> None:
    held_out = judged(examples)
    scores = held_out.score([()] * len(held_out.prompts))
    assert scores[gates.HELD_OUT] == 0.0
    assert scores[BESIDE_SIGNALS] == scores[SIGNALS] > 0


def test_lists_are_judged_alone_and_beside_the_signals(examples: Path) -> None:
    held_out = judged(examples)
    lines = [prompt.splitlines()[-2] for prompt in held_out.prompts]  # what is told last of the reader
    newest = [(line if at % 2 else "nothing of use",) for at, line in enumerate(lines)]
    scores = held_out.score(newest)
    assert scores.keys() == {gates.HELD_OUT, BESIDE_SIGNALS, SIGNALS}
    assert 0 < scores[gates.HELD_OUT] != scores[SIGNALS]
    assert scores[BESIDE_SIGNALS] != scores[SIGNALS]


def test_lists_that_weigh_nothing_are_not_served(examples: Path) -> None:
    held_out = judged(examples, Api(student_weight=0.0))
    scores = held_out.score([(prompt.splitlines()[-2],) for prompt in held_out.prompts])
    assert scores[BESIDE_SIGNALS] == scores[SIGNALS] != scores[gates.HELD_OUT]
