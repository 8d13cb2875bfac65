"""Which policies are compared, and when a mark is reached, on scores made by hand."""

import msgspec
import pytest

from offline.evaluate.claims import Finding, findings
from offline.evaluate.policy_names import BESIDE, BEST_OF, CLEANED, FUSED
from offline.evaluate.scores import ReaderScore, score
from offline.evaluate.table import finding_cells

POSITIVES = frozenset({"a", "b"})
READERS = 40


def scores(policy: str, hits: int) -> list[ReaderScore]:
    """Of forty readers, half of them cold, `hits` found one of two."""
    return [
        score(policy, f"u{n:02d}", 2 if n % 2 else 9, ["a"] if n < hits else ["x"], POSITIVES) for n in range(READERS)
    ]


def found(**hits: int) -> dict[tuple[str, str, str, str], Finding]:
    """By policy, other, metric and group; `_` stands for a hyphen."""
    of = {name.replace("_", "-"): value for name, value in hits.items()}
    return by_pair(findings({name: scores(name, value) for name, value in of.items()}, "BM25", "SASRec", seed=1))


def by_pair(rows: list[Finding]) -> dict[tuple[str, str, str, str], Finding]:
    return {(row.policy, row.other, row.metric, row.group): row for row in rows}


def test_the_teacher_is_compared_with_the_prompt_and_the_student_with_the_teacher() -> None:
    rows = found(prompt_only=10, teacher=20, student=19)
    taught = rows["teacher", "prompt-only", "recall_at_10", "all"]
    assert taught.ratio is not None
    assert (taught.ratio.mean, taught.wanted, taught.paper, taught.reached) == (2.0, 1.4, 1.4, True)
    assert taught.ratio.low < 2.0 < taught.ratio.high
    distilled = rows["student", "teacher", "recall_at_10", "all"]
    assert distilled.ratio is not None
    assert distilled.ratio.mean == pytest.approx(0.95)
    assert distilled.reached is False
    assert ("student", "teacher", "ndcg_at_10", "all") in rows
    assert {row.what for row in rows.values()} == {"reinforcement learning", "distillation"}


def test_better_means_by_more_than_chance() -> None:
    rows = found(student=22, student_supervised=20, student_none=5)
    close = rows["student", "student-supervised", "recall_at_10", "all"]
    assert close.ratio is not None
    assert close.ratio.mean > 1
    assert close.reached is False  # the interval begins at 1: two readers make the difference
    assert rows["student-supervised", "student-none", "recall_at_10", "all"].reached is True


def test_sequence_models_are_compared_by_groups_too() -> None:
    rows = found(student=20, SASRec=10)
    assert {key[3] for key in rows if key[:2] == ("student", "SASRec")} == {"all", "cold", "warm"}


def test_best_of_n_fused_and_cleaned_are_compared_with_what_they_were_made_of() -> None:
    made = {"student": 10, f"student{BEST_OF.format(32)}": 20, f"student{FUSED}": 24, "BM25": 12}
    made[f"student{BESIDE}"] = 18
    made |= {"own signals (8)": 9, f"own signals (8){CLEANED}": 10, f"student{CLEANED}": 12}
    rows = by_pair(findings({name: scores(name, value) for name, value in made.items()}, "BM25", "", seed=1))
    best = rows["student, best of 32", "student", "recall_at_10", "all"]
    assert (best.paper, best.reached) == (1.14, True)
    assert rows["student, best of 32", "student", "recall_at_50", "all"].wanted is None
    assert rows["student + best baseline", "BM25", "recall_at_10", "all"].wanted == 1.15
    served = rows["student + own signals (8)", "own signals (8)", "recall_at_10", "all"]
    assert served.ratio is not None
    assert served.ratio.mean == 2.0
    assert ("student + own signals (8)", "teacher", "recall_at_10", "all") not in rows  # no capacity of its own
    assert rows["student, cleaned", "student", "recall_at_10", "all"].wanted is None
    assert {key[2] for key in rows if key[:2] == ("student", "own signals (8)")} == {"recall_at_10", "recall_at_50"}
    assert ("student, cleaned", "own signals (8), cleaned", "recall_at_10", "all") in rows
    assert not any(key[:2] == ("student, cleaned", "own signals (8)") for key in rows)


def test_a_reward_is_worth_what_its_absence_costs_and_other_students_are_capacity() -> None:
    rows = found(teacher=20, teacher_without_coverage=10, student_6=15)
    missed = rows["teacher", "teacher-without-coverage", "recall_at_10", "all"]
    assert (missed.paper, missed.reached) == (2.36, True)
    assert rows["teacher", "teacher-without-coverage", "recall_at_50", "all"].wanted is None
    small = rows["student-6", "teacher", "recall_at_10", "all"]
    assert (small.what, small.reached, small.wanted) == ("capacity", None, None)


def test_against_nothing_found_there_is_no_ratio() -> None:
    row = found(teacher=20, prompt_only=0)["teacher", "prompt-only", "recall_at_10", "all"]
    assert (row.ratio, row.reached) == (None, None)
    assert finding_cells(row)[5:] == ["", "1.4", "≥ 1.4", "–"]


def test_cells_say_whether_a_mark_is_reached() -> None:
    row = found(student=20, student_none=5)["student", "student-none", "recall_at_10", "all"]
    cells = finding_cells(msgspec.structs.replace(row, reached=False))
    assert cells[4:6] == ["R@10", f"4.00 ({row.ratio.low:.2f} to {row.ratio.high:.2f})"]  # type: ignore[union-attr]
    assert cells[7:] == ["> 1", "no"]
