"""The models' in-memory twins, for tests and for trying things out: no weights, no server, the same answers each time.

`MemoryEmbedder` hashes words into dimensions, so texts that share words are near each other and nothing else is.
`MemoryStudent` repeats the last texts of its prompt as a list. `MemoryCleaner` knows a few words of log-in pages. None
of them has learnt anything: no figure of theirs counts.
"""

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.clients.models import Answer, Completion, Verdicts
from schemas.errors import PermanentError, RetryableError
from schemas.names import EMBEDDING_DIMENSIONS
from schemas.prompt import EXAMPLES

MAX_SAMPLES = 16
MAX_PROMPT_WORDS = 1024
_WORD = re.compile(r"\w+")
_SEPARATOR = re.compile(r"[;|]")


class MemoryStudent:
    """Greedy: the prompt's last three texts. Sampled: the same, turned by the seed.

    `failures` are given out first, one for each prompt, as a part that is away would.
    """

    def __init__(self, version: str = "memory-student-1", failures: Sequence[RetryableError] = ()) -> None:
        self._version, self._failures = version, list(failures)

    async def write(self, prompts: Sequence[str], *, samples: int = 1, seed: int = 0) -> list[Answer]:
        return [self._write_one(prompt, samples, seed) for prompt in prompts]

    def _write_one(self, prompt: str, samples: int, seed: int) -> Answer:
        if self._failures:
            return self._failures.pop(0)
        if not prompt.strip():
            return PermanentError("student: the prompt is empty: send the rendered text")
        if not 1 <= samples <= MAX_SAMPLES:
            return PermanentError(f"student: samples is {samples}: ask for 1 to {MAX_SAMPLES}")
        if len(prompt.split()) > MAX_PROMPT_WORDS:
            return PermanentError(f"student: the prompt is longer than {MAX_PROMPT_WORDS} words: shorten it")
        turns = [0] if samples == 1 and not seed else [seed + sample for sample in range(samples)]
        texts = tuple(_turned(_last_texts(prompt), turn) for turn in turns)
        return Completion(texts=texts, model_version=self._version, prompt_version=EXAMPLES)

    async def close(self) -> None:
        return None


class MemoryEmbedder:
    """Each word adds one to a dimension chosen by its hash; the sum has length one."""

    def __init__(self, version: str = "memory-embedder-1") -> None:
        self._version = version

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), EMBEDDING_DIMENSIONS), np.float32)
        for row, text in enumerate(texts):
            for word in _WORD.findall(text.casefold()) or [""]:
                vectors[row, _place(word)] += 1.0
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    async def version(self) -> str:
        return self._version

    async def close(self) -> None:
        return None


class MemoryCleaner:
    """Noise is what holds one of `words`. `failures` are raised first, one a call, as a part that is away would."""

    def __init__(
        self,
        words: frozenset[str] = frozenset({"login", "password", "inbox", "cart"}),
        version: str = "memory-cleaner-1",
        failures: Sequence[RetryableError | PermanentError] = (),
    ) -> None:
        self._words, self._version, self._failures = words, version, list(failures)
        self.asked: list[Sequence[str]] = []

    async def judge(self, texts: Sequence[str]) -> Verdicts:
        self.asked.append(tuple(texts))
        if self._failures:
            raise self._failures.pop(0)
        noise = tuple(not self._words.isdisjoint(_WORD.findall(text.casefold())) for text in texts)
        return Verdicts(noise=noise, model_version=self._version if texts else "")

    async def close(self) -> None:
        return None


def _place(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "big") % EMBEDDING_DIMENSIONS


def _last_texts(prompt: str) -> list[str]:
    """The signals in the prompt's last block: `Label: text; text` lines in front of the line that asks."""
    block = prompt.strip().rpartition("\n\n")[2].splitlines()
    texts = [text.strip() for line in block[:-1] or block for text in _SEPARATOR.split(line.partition(":")[2])]
    return [text for text in texts if text][-3:] or ["news"]


def _turned(texts: Sequence[str], turn: int) -> str:
    turn %= len(texts)
    return "; ".join([*texts[turn:], *texts[:turn]])
