import pytest

from keenstream.stack.part import Backoff, levels
from schemas.errors import UsageError
from tests.keenstream.stack.programs import part


def test_parts_are_ordered_by_what_they_depend_on() -> None:
    parts = [part("api", depends_on=("worker",)), part("kafka"), part("worker", depends_on=("kafka", "milvus"))]
    ordered = [[p.name for p in level] for level in levels([*parts, part("milvus")])]
    assert ordered == [["kafka", "milvus"], ["worker"], ["api"]]


def test_a_circle_is_refused() -> None:
    with pytest.raises(UsageError, match="wait for each other: a, b"):
        levels([part("a", depends_on=("b",)), part("b", depends_on=("a",))])


def test_a_dependency_that_is_not_started_is_refused() -> None:
    with pytest.raises(UsageError, match="worker depends on kafka"):
        levels([part("worker", depends_on=("kafka",))])


def test_two_parts_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="one name"):
        levels([part("a"), part("a")])


def test_waits_double_up_to_the_limit() -> None:
    backoff = Backoff(first_seconds=0.5, most_seconds=30)
    assert [backoff.seconds(n) for n in (0, 1, 2, 5, 6, 100)] == [0.5, 1, 2, 16, 30, 30]
