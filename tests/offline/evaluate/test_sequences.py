from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from offline.evaluate.answers import Answer, write_answers
from offline.evaluate.sequence_settings import NAMES, SequenceSettings
from offline.evaluate.sequences import kept_sequence_answers, sequence_answers

SETTINGS = SequenceSettings(factors=16, blocks=1, heads=1, epochs=30, patience=30, longest=8)
CLICKS = pa.Table.from_pylist(
    [  # everybody reads round the same circle
        {"user_id": f"u{user}", "article_id": f"a{(user + step) % 6}", "occurred_at": 1_000 * step}
        for user in range(60)
        for step in range(4)
    ]
)


@pytest.mark.parametrize("name", NAMES)
def test_a_sequence_model_learns_what_comes_next(name: str) -> None:
    pool = [f"a{n}" for n in range(6)]
    told: list[str] = []
    answers = sequence_answers(name, CLICKS, ["u0", "u1", "unknown"], pool, 2, SETTINGS, told.append)
    assert [answer.user_id for answer in answers] == ["u0", "u1", "unknown"]
    assert [answer.ranked[:1] for answer in answers] == [("a4",), ("a5",), ()]  # after a0 a1 a2 a3, and a1 a2 a3 a4
    assert told[0] == f"{name}, seed 7: epoch 1 of at most 30, 0%"


def test_nothing_that_is_alive_was_ever_clicked() -> None:
    (answer,) = sequence_answers("SASRec", CLICKS, ["u0"], ["new"], 2, SETTINGS, print)
    assert answer.ranked == ()


def test_what_was_answered_is_read_again_and_anything_else_is_not(tmp_path: Path) -> None:
    """Nobody clicked `new`, so nothing is trained here."""

    def answers(clicks: pa.Table, settings: SequenceSettings) -> list[Answer]:
        return kept_sequence_answers("SASRec", clicks, ["u0"], ["new"], 2, settings, tmp_path / "kept", print)

    assert answers(CLICKS, SETTINGS) == [Answer(user_id="u0")]
    (path,) = (tmp_path / "kept").iterdir()
    marked = [Answer(user_id="u0", ranked=("new",))]
    write_answers(path, marked)
    assert answers(CLICKS, SETTINGS) == marked
    assert answers(CLICKS.slice(1), SETTINGS) != marked
    assert answers(CLICKS, msgspec.structs.replace(SETTINGS, seed=8)) != marked
