from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from offline.evaluate.evaluation import Evaluation, EvaluationSettings, evaluate
from offline.evaluate.expectations import learn_expectations
from offline.evaluate.held_out import HeldOutReader
from offline.evaluate.policies import Completions, always
from offline.evaluate.policy_names import CLICK_MODEL
from offline.evaluate.table import told
from offline.evaluate.task import Task, make_task
from offline.training.example_set import load_split
from offline.training.news_index import TextVectors
from offline.training.rewards import EXPECTED_HIT, PAPER
from schemas.clients.memory_models import MemoryEmbedder
from schemas.errors import UsageError
from schemas.profile import latest_signals
from schemas.prompt import BARE, render_prompt

ALONE = EvaluationSettings(
    seeds=(1,), sequences=None, beyond=(EXPECTED_HIT,), reward_weights=dict.fromkeys(PAPER, 0.0), most_readers=60
)


def noise_then_signals(readers: Sequence[HeldOutReader], samples: int, seed: int) -> Completions:
    return {row.user_id: ("zzz qqq", next(latest_signals(row.profile))[1].text.replace(";", " ")) for row in readers}


@pytest.fixture(scope="module")
def evaluation(examples: Path) -> Evaluation:
    return evaluate(examples, {"model": [always(noise_then_signals)]}, MemoryEmbedder(), ALONE, lambda step: None)


@pytest.fixture(scope="module")
def task(examples: Path) -> Task:
    return make_task(examples, load_split(examples, "held_out"), MemoryEmbedder(), fresh_days=3.0, most_readers=20)


def test_the_click_model_ranks_well_and_is_no_baseline(evaluation: Evaluation) -> None:
    means = {row.policy: row.metrics["recall_at_50"].mean for row in evaluation.rows if row.group == "all"}
    assert means[CLICK_MODEL] > means["popularity"]
    assert evaluation.best_baseline != CLICK_MODEL
    assert f"model + {CLICK_MODEL}" not in means
    assert ("model", CLICK_MODEL) in {(row.policy, row.other) for row in evaluation.differences}


def test_by_what_is_to_be_expected_the_better_list_is_chosen(evaluation: Evaluation) -> None:
    means = {row.policy: row.metrics["recall_at_50"].mean for row in evaluation.rows if row.group == "all"}
    assert means["model, best of 2"] > means["model"]
    assert "best-of-N also by expected_hit; best-of-N by rewards of the weights align 0" in told(evaluation)


def test_what_a_held_out_reader_clicks_later_has_no_say(examples: Path, task: Task) -> None:
    nothing = [_blind(row) for row in task.readers]
    first, blind = (
        learn_expectations(examples, asked, TextVectors(MemoryEmbedder()), 50, lambda step: None)
        for asked in (task, msgspec.structs.replace(task, readers=nothing))
    )
    assert first.answers == blind.answers
    assert {len(answer.ranked) for answer in first.answers} == {50}


def _blind(reader: HeldOutReader) -> HeldOutReader:
    return msgspec.structs.replace(reader, positives=frozenset())


def test_the_reward_knows_the_readers_that_are_judged_and_nobody_else(examples: Path, task: Task) -> None:
    reward = learn_expectations(examples, task, TextVectors(MemoryEmbedder()), 50, lambda step: None).reward
    prompt = render_prompt(task.readers[0].profile, BARE)
    (value,) = reward(prompts=[prompt], completions=[next(latest_signals(task.readers[0].profile))[1].text])
    assert value is not None
    assert 0 <= value <= 1
    assert reward(prompts=["another"], completions=["storm"]) == [None]


def test_without_clicks_before_the_moment_nothing_can_be_expected(examples: Path, task: Task) -> None:
    early = msgspec.structs.replace(task, news=msgspec.structs.replace(task.news, at_ms=0))
    with pytest.raises(UsageError, match="prepare a longer log"):
        learn_expectations(examples, early, TextVectors(MemoryEmbedder()), 50, lambda step: None)


def test_a_reward_that_sees_later_clicks_is_refused(examples: Path) -> None:
    with pytest.raises(UsageError, match="cannot choose lists: use expected_hit"):
        evaluate(examples, {}, MemoryEmbedder(), EvaluationSettings(beyond=("hit",)), lambda step: None)
