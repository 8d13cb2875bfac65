import pickle
from pathlib import Path

import msgspec
import pytest

from offline.training.curves import Curves
from offline.training.expected_hit import ExpectedHit
from offline.training.gates import ABSTAINED
from offline.training.material import Material, prompts_of
from offline.training.rewards import EXPECTED_HIT
from offline.training.stage import Session
from tests.offline.training import world
from tests.offline.training.runs import TEACHER, run_stage

TOPICS = ["storm", "chess", "lithium"]


def learnt(material: Material, most: int = 24) -> ExpectedHit:
    reward = ExpectedHit(material.news)
    reward.learn(material.training, most, print)
    return reward


def test_a_list_of_the_readers_topic_brings_most(material: Material) -> None:
    reward = learnt(material)
    for reader, prompt in zip(material.training, prompts_of(material.training), strict=True):
        own = reader.profile.click[0].text.split()[0]
        values = reward(prompts=[prompt] * 3, completions=TOPICS)
        assert max(zip(values, TOPICS, strict=True))[1] == own
        assert all(value is not None and 0 <= value <= 1 for value in values)


def test_it_abstains_for_whom_it_has_not_learnt_and_an_empty_list_brings_nothing(material: Material) -> None:
    reward, prompts = learnt(material, most=2), prompts_of(material.training)
    assert reward(prompts=prompts[1:3], completions=["", ""]) == [0.0, None]
    assert ExpectedHit(material.news)(prompts=prompts[:1], completions=["storm"]) == [None]


def test_a_readers_own_later_clicks_have_no_say(material: Material) -> None:
    first, *others = material.training
    moved = msgspec.structs.replace(first, clicked=("lithium-0", "lithium-1"))
    prompts = prompts_of([first]) * 3
    values = [
        learnt(msgspec.structs.replace(material, training=rows))(prompts=prompts, completions=TOPICS)
        for rows in ([first, *others], [moved, *others])
    ]
    assert values[0] == pytest.approx(values[1])


def test_it_pickles_with_what_it_has_learnt(material: Material) -> None:
    reward, prompts = learnt(material, most=1), prompts_of(material.training[:1])
    again = pickle.loads(pickle.dumps(reward))  # noqa: S301  # our own bytes
    assert again(prompts=prompts, completions=["storm"]) == reward(prompts=prompts, completions=["storm"])


def test_a_teacher_learns_by_it(
    base: str, material: Material, session: Session, told: list[str], tmp_path: Path
) -> None:
    rewards = {"structure": world.has_queries, EXPECTED_HIT: ExpectedHit(material.news)}
    run_stage("teacher", tmp_path, base, msgspec.structs.replace(material, rewards=rewards), session)
    assert any(line.startswith("click model 1 of 2") for line in told)
    steps = [row for row in Curves(tmp_path).rows if f"rewards/{EXPECTED_HIT}/mean" in row]
    assert len(steps) == TEACHER.steps
    assert all(row[f"{ABSTAINED}{EXPECTED_HIT}"] == 0 for row in steps)  # it knows every reader of the run
