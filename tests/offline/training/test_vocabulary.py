import json
import shutil
from pathlib import Path

import pytest

from offline.training.bases import load_base
from offline.training.vocabulary import check_same_vocabulary, tokenizer_sha256
from schemas.errors import UsageError


@pytest.fixture
def other(base: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "other"))


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_use_does_not_change_the_hash(base: str, other: Path) -> None:
    tokenizer = load_base(base).tokenizer
    tokenizer(["a", "a longer text"], padding=True, truncation=True, max_length=4)
    tokenizer.save_pretrained(other)
    assert check_same_vocabulary(other, Path(base)) == tokenizer_sha256(Path(base))


def test_another_token_or_end_is_another_tokenizer(base: str, other: Path) -> None:
    rules = json.loads((other / "tokenizer.json").read_text())
    rules["model"]["merges"] = rules["model"]["merges"][:-1]
    (other / "tokenizer.json").write_text(json.dumps(rules))
    with pytest.raises(UsageError, match="different tokenizers"):
        check_same_vocabulary(other, Path(base))
    shutil.copy(Path(base) / "tokenizer.json", other)
    change(other / "tokenizer_config.json", eos_token="<|endoftext|>")
    with pytest.raises(UsageError, match="different tokenizers"):
        check_same_vocabulary(other, Path(base))


def test_a_vocabulary_padded_differently_says_what_to_do(base: str, other: Path) -> None:
    change(other / "config.json", vocab_size=512)
    with pytest.raises(UsageError, match=r"padded differently \(512 and \d+ rows\): resize the smaller once"):
        check_same_vocabulary(other, Path(base))


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no readable tokenizer"):
        tokenizer_sha256(tmp_path)
