import pytest

from offline.release.agreement import agreement, check_agreement
from schemas.errors import KeenstreamError, UsageError

TRAINED = ["storm coast; chess title", "lithium price", "", "storm wind"]


def test_figures_are_those_of_the_lists_as_parsed() -> None:
    found = agreement(TRAINED, [" storm coast;  chess title", "lithium mine", "", ""])
    assert (found.lists, found.valid, found.valid_before) == (4, 0.5, 0.75)
    assert (found.same, found.overlap) == (0.5, 0.5)
    assert agreement(["a b; c d"], ["c d; e f"]).overlap == pytest.approx(1 / 3)


def test_the_same_lists_pass_every_limit() -> None:
    assert check_agreement(agreement(TRAINED, TRAINED), 1.0).same == 1.0


@pytest.mark.parametrize(
    ("served", "told"),
    [
        ([*TRAINED[:1], "", "", ""], "25% of 4 served lists are usable, 75% were"),
        (["x y"] * 4, "share 0% of their queries"),
    ],
)
def test_a_broken_conversion_is_told(served: list[str], told: str) -> None:
    with pytest.raises(KeenstreamError, match=told):
        check_agreement(agreement(TRAINED, served), 0.5)


def test_one_close_call_breaks_no_conversion() -> None:
    assert check_agreement(agreement(TRAINED, [*TRAINED[:3], ""]), 0.5).valid == 0.5
    with pytest.raises(KeenstreamError, match="94% of 200 served lists are usable, 100% were"):
        check_agreement(agreement(["a b"] * 200, ["a b"] * 188 + [""] * 12), 0.5)


def test_nothing_to_compare_is_no_agreement() -> None:
    with pytest.raises(UsageError, match="nothing to compare"):
        agreement([], [])
