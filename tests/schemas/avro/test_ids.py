import threading
import time
from collections.abc import Callable

import pytest

from schemas.avro.ids import AWAY_SECONDS, GONE_SECONDS, Answers, SchemaIds
from schemas.errors import InvalidRecord, Unavailable

LONG = 30.0


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Asked:
    """Answers with what it is given, or raises it; counts the questions."""

    def __init__(self, *results: int | Exception) -> None:
        self.results, self.count = list(results), 0

    def __call__(self, question: str) -> int:
        self.count += 1
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


def test_an_answer_is_kept_for_ever() -> None:
    asked, clock = Asked(7), Clock()
    answers = Answers(asked, clock=clock)
    assert answers.get("q", wait_seconds=LONG) == 7
    clock.now += 1e9
    assert answers.get("q", wait_seconds=0) == 7
    assert asked.count == 1


@pytest.mark.parametrize(
    ("failure", "kept_seconds"), [(Unavailable("away"), AWAY_SECONDS), (InvalidRecord("gone"), GONE_SECONDS)]
)
def test_a_failure_is_kept_for_a_while(failure: Exception, kept_seconds: float) -> None:
    asked, clock = Asked(failure, 7), Clock()
    answers = Answers(asked, clock=clock)
    for _ in range(3):
        with pytest.raises(type(failure), match=str(failure)):
            answers.get("q", wait_seconds=LONG)
    assert asked.count == 1
    clock.now += kept_seconds + 1
    assert answers.get("q", wait_seconds=LONG) == 7


def test_a_slow_answer_is_waited_for_once_and_found_later() -> None:
    go = threading.Event()

    def ask(question: str) -> int:
        go.wait(LONG)
        return 7

    answers = Answers(ask)
    for _ in range(2):
        with pytest.raises(Unavailable, match="being asked"):
            answers.get("q", wait_seconds=0.01)
    go.set()
    assert eventually(lambda: answers.get("q", wait_seconds=0)) == 7


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        Answers(fail).get("q", wait_seconds=LONG)


def fail(question: str) -> int:
    return 1 // 0


def test_pinned_ids_need_no_registry() -> None:
    ids = SchemaIds(None, pinned={5: "text"})
    assert ids.text(5) == "text"
    assert ids.id_of("any subject", "text") == 5
    with pytest.raises(Unavailable, match="KEENSTREAM_REGISTRY_URL"):
        ids.text(6, wait_seconds=LONG)


def eventually(attempt: Callable[[], int]) -> int:
    deadline = time.monotonic() + 60
    while True:
        try:
            return attempt()
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
