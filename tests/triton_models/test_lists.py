from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline.training import greedy
from tests.triton_models.code import load, served_code

with served_code("student"):
    lists: ModuleType = load("lists")

TEXTS = st.text(alphabet="ab;| \n", max_size=60)


@pytest.mark.parametrize(
    ("text", "ended", "kept"),
    [
        ("chiefs; beef prices\nSearches: x", False, "chiefs; beef prices"),
        ("chiefs; beef prices", True, "chiefs; beef prices"),
        ("chiefs; beef pri", False, "chiefs"),
        ("chiefs and beef pri", False, "chiefs and beef pri"),
        ("Chiefs; beef;  chiefs ; tax", True, "Chiefs; beef"),
        ("a | b | a | c", True, "a; b"),
        ("a;b;c;d;e;f;g;h;i;j", True, "a; b; c; d; e; f; g; h"),
        ("", True, ""),
        ("\nmore", False, ""),
    ],
)
def test_a_list_ends_at_the_line_a_repeat_or_enough_items(text: str, ended: bool, kept: str) -> None:
    assert lists.cut_list(text, ended=ended) == kept


@given(TEXTS, TEXTS)
def test_a_complete_list_is_not_changed_by_more_text(text: str, more: str) -> None:
    if lists.list_is_complete(text):
        assert lists.cut_list(text, ended=False) == lists.cut_list(text + more, ended=False)


@given(TEXTS, st.booleans())
def test_a_list_is_one_line_of_distinct_items(text: str, ended: bool) -> None:
    kept = lists.cut_list(text, ended=ended)
    items = [item for item in kept.split("; ") if item]
    assert "\n" not in kept
    assert len({" ".join(item.split()) for item in items}) == len(items) <= lists.MAX_ITEMS


@pytest.mark.parametrize(
    ("tokens", "banned"),
    [
        ([], set()),
        ([5, 6], set()),  # inside the first item
        ([5, 6, 0], {5}),
        ([5, 6, 0, 7, 0], {5, 7}),
        ([5, 6, 0, 7], set()),  # inside the second
        ([5, 0, 1, 6, 0], {5, 6}),  # an empty item between
        ([0], set()),
    ],
)
def test_no_item_begins_as_an_earlier_one(tokens: list[int], banned: set[int]) -> None:
    assert lists.taken(tokens, {0, 1}) == banned


@given(st.lists(st.integers(0, 6), max_size=20))
def test_the_trainer_has_the_same_rule(tokens: list[int]) -> None:
    assert lists.taken(tokens, {0, 1}) == greedy.taken(tokens, {0, 1})


def test_settings_are_read_from_the_parameters() -> None:
    settings = lists.Settings.read({"weights": "weights", "threads": "2", "top_p": "0.5"}, Path("/models/student/1"))
    assert settings == lists.Settings(weights=Path("/models/student/1/weights"), threads=2, top_p=0.5)


def test_an_unknown_parameter_is_named() -> None:
    with pytest.raises(ValueError, match="temprature"):
        lists.Settings.read({"weights": "w", "temprature": "1"}, Path())


@pytest.mark.parametrize(("samples", "seed", "sampled"), [(1, 0, False), (1, 7, True), (2, 0, True)])
def test_one_sample_without_a_seed_is_greedy(samples: int, seed: int, sampled: bool) -> None:
    assert lists.Task("prompt", samples, seed).sampled is sampled
