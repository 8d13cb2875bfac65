from collections.abc import Sequence

import numpy as np
import pytest

from offline.training import likely_names as subject
from offline.training.likely_names import likely_names
from offline.training.news_index import Vectors
from offline.training.proposals import TrainingReader
from schemas.profile import Signal, UserProfile

TOPICS = ("lithium mine", "coast storm", "rail strike", "school budget", "vaccine trial", "film prize")
RNG = np.random.default_rng(5)


def embed(texts: Sequence[str]) -> Vectors:
    return np.zeros((len(texts), 3), np.float32)


def reader(number: int) -> TrainingReader:
    topic = TOPICS[number % len(TOPICS)]
    signals = tuple(Signal(at, f"{number}-{at}", f"{topic} {at}") for at in range(3))
    return TrainingReader(user_id=f"u{number}", profile=UserProfile(user_id=f"u{number}", search=signals), clicked=())


READERS = [reader(number) for number in range(240)]
TRUE = [number % len(TOPICS) for number in range(len(READERS))]


@pytest.fixture(autouse=True)
def enough_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "LEAST_READERS", 100)


def test_what_like_prompts_share_comes_first() -> None:
    """A third of the lists are of other topics; what the prompt tells is put first nonetheless."""
    noisy = [[topic if RNG.random() > 0.33 else int(RNG.integers(len(TOPICS)))] for topic in TRUE]
    likely = likely_names(READERS, noisy, len(TOPICS), embed)
    assert [row[0] for row in likely] == TRUE


def test_every_reader_has_as_many_names_to_choose_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "LIKELY", 4)
    likely = likely_names(READERS, [[topic] for topic in TRUE], len(TOPICS), embed)
    assert {len(set(row)) for row in likely} == {4}


def test_a_readers_own_list_does_not_decide() -> None:
    lists = [[topic] for topic in TRUE]
    moved = [[(TRUE[0] + 1) % len(TOPICS)], *lists[1:]]
    before, after = (likely_names(READERS, rows, len(TOPICS), embed)[0] for rows in (lists, moved))
    assert before == after


def test_neither_do_lists_of_the_other_half_of_the_readers() -> None:
    """Their click model knows this reader's later clicks."""
    lists = [[topic] for topic in TRUE]
    moved = [row if at % 2 == 0 else [0] for at, row in enumerate(lists)]
    before, after = (likely_names(READERS, rows, len(TOPICS), embed) for rows in (lists, moved))
    assert before[::2] == after[::2]
    assert before[1::2] != after[1::2]


def test_few_readers_keep_their_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "LEAST_READERS", len(READERS) + 1)
    lists = [[topic] for topic in TRUE]
    assert likely_names(READERS, lists, len(TOPICS), embed) == lists


def test_many_readers_are_fitted_in_another_way_to_the_same_end(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = [[topic, int(RNG.integers(len(TOPICS)))] for topic in TRUE]
    in_kernel = likely_names(READERS, lists, len(TOPICS), embed)
    monkeypatch.setattr(subject, "MOST_IN_KERNEL", 0)
    assert likely_names(READERS, lists, len(TOPICS), embed) == in_kernel
