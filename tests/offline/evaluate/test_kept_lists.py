from pathlib import Path

import pytest

from offline.evaluate.kept_lists import KeptLists
from schemas.errors import UsageError


def test_what_is_kept_is_not_missing(tmp_path: Path) -> None:
    kept = KeptLists(tmp_path / "made" / "lists.jsonl")
    assert kept.missing(["a", "b", "a"], 2, 1) == ["a", "b"]
    kept.add(["a"], 1, [("x", "y")])
    for known in (kept, KeptLists(tmp_path / "made" / "lists.jsonl")):
        assert known.of("a", 1, 1) == ("x",)
        assert known.missing(["a", "b"], 2, 1) == ["b"]
        assert known.missing(["a"], 3, 1) == known.missing(["a"], 1, 2) == ["a"]  # more of them; another seed


def test_more_lists_take_the_place_of_fewer(tmp_path: Path) -> None:
    kept = KeptLists(tmp_path / "lists.jsonl")
    kept.add(["a"], 1, [("x",)])
    kept.add(["a"], 1, [("x", "y")])
    assert KeptLists(tmp_path / "lists.jsonl").of("a", 2, 1) == ("x", "y")


def test_a_line_that_was_cut_short_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "lists.jsonl"
    kept = KeptLists(path)
    kept.add(["a", "b"], 0, [("x",), ("y",)])
    path.write_bytes(path.read_bytes()[:-4])
    again = KeptLists(path)
    assert again.missing(["a", "b"], 1, 0) == ["b"]
    again.add(["b"], 0, [("y",)])
    assert KeptLists(path).of("b", 1, 0) == ("y",)


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lists.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match="holds no lists of an evaluation"):
        KeptLists(tmp_path / "lists.jsonl")
