from pathlib import Path

import pytest

from offline.evaluate.served_prompt import checkpoint_in
from schemas.errors import UsageError
from schemas.prompt import BARE, EXAMPLES


def test_a_run_says_where_its_model_lies_and_what_it_reads(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "manifest.json").write_text('{"prompt_version": "bare-1", "kind": "student"}')
    wanted = (str(tmp_path / "model"), BARE)
    assert checkpoint_in(str(tmp_path)) == wanted
    assert checkpoint_in(str(tmp_path / "model")) == wanted
    (tmp_path / "manifest.json").write_text('{"prompt_version": "bare-0"}')
    with pytest.raises(UsageError, match="trained on the prompt 'bare-0'"):
        checkpoint_in(str(tmp_path))


def test_the_base_says_that_it_wants_examples(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"prompt_version": "examples-1"}')
    assert checkpoint_in(str(tmp_path)) == (str(tmp_path), EXAMPLES)


def test_without_a_manifest_it_is_taken_for_a_trained_model(tmp_path: Path) -> None:
    assert checkpoint_in(str(tmp_path)) == (str(tmp_path), BARE)
    assert checkpoint_in("Qwen/Qwen2.5-0.5B-Instruct") == ("Qwen/Qwen2.5-0.5B-Instruct", BARE)
