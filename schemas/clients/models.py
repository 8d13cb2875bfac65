"""The models' contract: prompts to lists, texts to vectors, texts to verdicts.

`Student`, `Embedder` and `Cleaner` are implemented by `triton` and by the in-memory twins in `memory_models`; one
behaviour suite runs on both (`tests/contracts/test_models.py`).
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.errors import PermanentError, RetryableError


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """What was written for one prompt."""

    texts: tuple[str, ...]  # one for each sample, one line each; may be empty
    model_version: str  # name and version of the weights
    prompt_version: str  # the rendering that the weights were made for


Answer = Completion | PermanentError | RetryableError  # the error of one prompt is a value: it leaves the others alone


class Student(Protocol):
    """Writes lists of queries."""

    async def write(self, prompts: Sequence[str], *, samples: int = 1, seed: int = 0) -> list[Answer]:
        """One answer for each prompt, in order.

        One sample without a seed is greedy; anything else is sampled, and the same call with the same seed repeats.
        """
        ...

    async def close(self) -> None: ...


class Embedder(Protocol):
    """Turns texts into vectors of length one."""

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """FP32 [n, 384], in order. Raises RetryableError or PermanentError for the whole call."""
        ...

    async def version(self) -> str:
        """Name and version of the weights; vectors of different versions must not be compared."""
        ...

    async def close(self) -> None: ...


class Verdicts(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of some texts, in their order."""

    noise: tuple[bool, ...]  # True: it says nothing of its reader's interests
    model_version: str  # name and version of the weights


class Cleaner(Protocol):
    """Tells the texts of pages and searches that say nothing of a reader's interests."""

    async def judge(self, texts: Sequence[str]) -> Verdicts:
        """One verdict for each text. Raises RetryableError or PermanentError for the whole call."""
        ...

    async def close(self) -> None: ...
