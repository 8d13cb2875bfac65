"""Whether two models read and write the same tokens. Distillation compares their answers token by token.

trl compares the sizes of the vocabularies and nothing else, which neither refuses two different tokenizers of one size
nor takes two equal ones whose models are padded differently (trl issues 7215 and 3028).
"""

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from schemas.errors import UsageError

FILE = "tokenizer.json"
_MOVES = ("truncation", "padding")  # set by whoever used the tokenizer last


def tokenizer_sha256(folder: Path) -> str:
    """Of everything that turns text into tokens and back, and of the tokens that end and fill."""
    try:
        rules = msgspec.json.decode((folder / FILE).read_bytes(), type=dict[str, Any])
        settings = msgspec.json.decode((folder / "tokenizer_config.json").read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(f"{folder} holds no readable tokenizer ({error}): save it beside the model") from error
    kept = {name: value for name, value in rules.items() if name not in _MOVES}
    ends = {name: settings.get(name) for name in ("eos_token", "pad_token")}
    return hashlib.sha256(msgspec.json.encode([kept, ends], order="deterministic")).hexdigest()


def check_same_vocabulary(student: Path, teacher: Path) -> str:
    """The hash of the tokenizer that both share; UsageError says in what they differ."""
    ours, theirs = tokenizer_sha256(student), tokenizer_sha256(teacher)
    if ours != theirs:
        raise UsageError(
            f"the student {student} and the teacher {teacher} have different tokenizers ({ours[:12]} and "
            f"{theirs[:12]}): the student cannot learn from its tokens; choose a smaller model of the same family, "
            "or prune the teacher's base with --layers"
        )
    rows, teacher_rows = vocabulary_rows(student), vocabulary_rows(teacher)
    if rows != teacher_rows:
        smaller = student if rows < teacher_rows else teacher
        raise UsageError(
            f"student and teacher have the same tokenizer, but their vocabularies are padded differently ({rows} and "
            f"{teacher_rows} rows): resize the smaller once, model.resize_token_embeddings({max(rows, teacher_rows)}) "
            f"of {smaller}, save it, and train with that"
        )
    return ours


def vocabulary_rows(folder: Path) -> int:
    """Rows of the model's table of tokens, padding included."""

    class Shape(msgspec.Struct):
        vocab_size: int

    return msgspec.json.decode((folder / "config.json").read_bytes(), type=Shape).vocab_size
