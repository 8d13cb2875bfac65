from typing import Any

import msgspec
import pytest

from offline.training.bases import load_base
from offline.training.gates import HELD_OUT
from offline.training.grpo import named_reward
from offline.training.material import (
    Material,
    checked_material,
    columns_of,
    composite_of,
    held_out_measure,
    mean_recall,
    signals_recall,
)
from schemas.errors import UsageError
from tests.offline.training import world


def without_clicks(readers: Any) -> Any:
    return [msgspec.structs.replace(reader, clicked=()) for reader in readers]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"training": world.readers(1)}, "hold 1 training reader"),
        ({"training": without_clicks(world.readers(5))}, "no training reader clicked"),
        ({"held_out": without_clicks(world.readers(5, 90))}, "no held-out reader clicked"),
        ({"held_out": world.readers(5, 20)}, "4 readers are both"),
    ],
)
def test_examples_that_teach_nothing_are_refused(material: Material, changes: dict[str, Any], told: str) -> None:
    assert checked_material(material) is material
    with pytest.raises(UsageError, match=told):
        checked_material(msgspec.structs.replace(material, **changes))


def test_the_composite_is_the_weighted_sum_and_abstaining_is_zero() -> None:
    def half(*, completions: list[str], user_id: list[str], **_rest: Any) -> list[float | None]:
        assert user_id == ["reader-0", "reader-1"]
        return [0.5 for _ in completions]

    def abstains(**_batch: Any) -> list[float | None]:
        return [None, 1.0]

    composite = composite_of({"half": half, "abstains": abstains}, {"half": 3.0})
    assert composite(world.readers(2), [" a", " b"]) == [1.5, 2.5]


def test_a_reward_keeps_its_name_and_logs_how_often_it_abstains() -> None:
    logged: dict[str, float] = {}
    reward = named_reward("judge", lambda **_batch: [None, 1.0, None, 0.0])
    assert reward(completions=["a"] * 4, log_metric=logged.__setitem__) == [None, 1.0, None, 0.0]
    assert (reward.__name__, logged) == ("judge", {"abstained/judge": 0.5})


def test_recall_is_that_of_the_merged_lists(material: Material) -> None:
    """The memory embedder finds a topic's twelve articles by its name; four were clicked, ten are shown."""
    reader = world.readers(1)[0]
    assert mean_recall(material.rank, [reader], [("chess",)]) == 0.0
    found = set(material.rank([reader], [("storm",)])[0])
    assert len(found) == 10
    assert mean_recall(material.rank, [reader], [("storm",)]) == len(found & set(reader.clicked)) / 4
    assert 0 < signals_recall(material) <= 1


def test_the_held_out_measure_leaves_the_model_as_it_was(base: str, material: Material) -> None:
    loaded = load_base(base)
    loaded.model.train()
    measured = held_out_measure(material, loaded.tokenizer, 4)(loaded.model)
    assert 0.0 <= measured[HELD_OUT] <= 1.0
    assert loaded.model.training


def test_rewards_are_told_of_each_reader(material: Material) -> None:
    columns = columns_of(material.training)
    assert {len(values) for values in columns.values()} == {len(material.training)}
    assert columns["signals"][0] == [s.text for s in reversed(material.training[0].profile.click)]
