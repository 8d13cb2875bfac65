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
        (TRAINED * 3 + [""] * 12, "38% of 24 served lists are usable, 75% were"),
        (["x y"] * 24, "share 0% of their queries"),
    ],
)
def test_a_broken_conversion_is_told(served: list[str], told: str) -> None:
    with pytest.raises(KeenstreamError, match=told):
        check_agreement(agreement(TRAINED * 6, served), 0.5)


def test_close_calls_that_go_either_way_break_no_conversion() -> None:
    found = check_agreement(agreement(TRAINED, [*TRAINED[:3], ""]), 0.5)
    assert (found.valid, found.broken, found.mended) == (0.5, 1, 0)
    two_of_forty = agreement(["a b"] * 36 + [""] * 4, ["a b"] * 34 + [""] * 6)
    assert check_agreement(two_of_forty, 0.5).broken == 2
    either_way = agreement(["a b"] * 100 + [""] * 100, ["a b"] * 70 + [""] * 30 + ["a b"] * 22 + [""] * 78)
    assert check_agreement(either_way, 0.5).mended == 22
    with pytest.raises(KeenstreamError, match="94% of 200 served lists are usable, 100% were"):
        check_agreement(agreement(["a b"] * 200, ["a b"] * 188 + [""] * 12), 0.5)


def test_nothing_to_compare_is_no_agreement() -> None:
    with pytest.raises(UsageError, match="nothing to compare"):
        agreement([], [])
