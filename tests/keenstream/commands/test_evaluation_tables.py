"""What a terminal of eighty columns shows of an evaluation: every name and figure whole."""

import pytest

from keenstream.commands.console import console
from keenstream.commands.evaluation_tables import show
from offline.evaluate.claims import findings
from offline.evaluate.evaluation import Evaluation
from offline.evaluate.metrics import Estimate
from offline.evaluate.scores import Difference, PolicyRow, ReaderScore, score
from offline.evaluate.table import SHOWN

STUDENT, SIGNALS = "student", "own signals (8)"
SERVED = f"{STUDENT} + {SIGNALS}"
NAMES = (STUDENT, "student-supervised", "student-supervised-of-30-blocks", SIGNALS, SERVED)


def scores(policy: str, hits: int) -> list[ReaderScore]:
    """Of forty readers, half of them cold, `hits` found what they clicked."""
    found = frozenset({"a"})
    return [score(policy, f"u{n}", 2 if n % 2 else 9, ["a"] if n < hits else ["x"], found) for n in range(40)]


def evaluation() -> Evaluation:
    value = Estimate(0.1234, 0.1, 0.15, 40)
    rows = [
        PolicyRow(policy=name, group=group, metrics=dict.fromkeys(SHOWN, value), answered=1.0)
        for name in NAMES
        for group in ("all", "cold", "warm")
    ]
    gained = Estimate(-0.042, -0.058, -0.026, 40)
    compared = Difference(
        policy=SERVED,
        other=SIGNALS,
        group="all",
        metric="recall_at_10",
        difference=gained,
        ratio=Estimate(7.51, 5.55, 10.59, 40),
    )
    by_name = {name: scores(name, hits) for name, hits in zip(NAMES, (30, 20, 10, 20, 36), strict=True)}
    return Evaluation(
        protocol="",
        content_sha256="",
        at_ms=0,
        until_ms=1,
        pool=100,
        readers=40,
        without_positives=0,
        positives_per_reader=1.0,
        seeds=(1,),
        best_baseline=SIGNALS,
        fused_weights={},
        trainings={STUDENT: 1},
        rows=tuple(rows),
        differences=(compared,),
        findings=tuple(findings(by_name, SIGNALS, "", seed=1)),
    )


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(console, "_width", 80)
    with console.capture() as capture:
        show(evaluation())
    return capture.get()


def test_no_line_is_longer_and_nothing_is_cut(shown: str) -> None:
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert all(shown.count(f" {name} ") >= 3 for name in NAMES)  # all, cold and warm readers


def test_figures_stand_with_their_intervals_on_one_line(shown: str) -> None:
    (student,) = {line for line in shown.splitlines() if line.startswith(" student  ")}
    assert student.split() == ["student", *["0.123", "±0.025"] * 3]
    assert "-0.042 (-0.058 to -0.026)  7.51 (5.55 to 10.59)" in shown


def test_claims_name_the_pair_the_metric_and_the_mark(shown: str) -> None:
    claims = shown[shown.index("What the paper claims") :]
    (row,) = [line for line in claims.splitlines() if line.startswith(f" student / {SIGNALS}, R@10 ")]
    assert " – " in row  # the paper has no figure of this
    assert "≥ 1.25" in row
    assert row.rstrip().endswith("yes")
    assert claims.rstrip().endswith("own signals (8).")
