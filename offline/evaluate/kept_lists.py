"""Lists that one model wrote for prompts, kept so that no list is written twice: readers with equal prompts share one,
an evaluation that was cut off goes on, and another one of the same model begins with what is there."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from schemas.errors import UsageError

Texts = tuple[str, ...]


class _Line(msgspec.Struct, frozen=True, array_like=True):
    prompt: str  # its hash
    seed: int  # 0: greedy
    texts: Texts


class KeptLists:
    """By prompt and seed; beside the memory in the file `path`, a line for each, where one is given."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._rows = {(row.prompt, row.seed): row.texts for row in _read(path)} if path else {}

    def missing(self, prompts: Iterable[str], count: int, seed: int) -> list[str]:
        """Those of which fewer than `count` texts are known, each once."""
        known = self._rows
        return [text for text in dict.fromkeys(prompts) if len(known.get((_hash(text), seed), ())) < count]

    def add(self, prompts: Sequence[str], seed: int, texts: Sequence[Texts]) -> None:
        lines = [_Line(_hash(prompt), seed, row) for prompt, row in zip(prompts, texts, strict=True)]
        self._rows.update({(line.prompt, line.seed): line.texts for line in lines})
        if self._path:
            with self._path.open("ab") as file:
                file.write(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))

    def of(self, prompt: str, count: int, seed: int) -> Texts:
        """The first `count` texts; KeyError for a prompt that has none."""
        return self._rows[_hash(prompt), seed][:count]


def _hash(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()[:32]


def _read(path: Path) -> list[_Line]:
    """The whole lines; what a killed writer left of its last one is cut off. UsageError for another file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = path.read_bytes() if path.exists() else b""
    whole = found[: found.rfind(b"\n") + 1]
    if whole != found:
        with path.open("r+b") as file:
            file.truncate(len(whole))
    decoder = msgspec.json.Decoder(_Line)
    try:
        return [decoder.decode(line) for line in whole.splitlines()]
    except msgspec.MsgspecError as error:
        raise UsageError(f"{path} holds no lists of an evaluation ({error}): remove it") from error
