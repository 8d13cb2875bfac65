"""The code of the student and the cleaner as served, in this process: what Triton will run, from the same folder.

Triton's stub puts the model's own folder first on the path, so its modules import each other by bare names; the same is
done here for the length of the import, and nothing of it stays behind.
"""

import importlib
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline.release.repository import TEMPLATE_VERSION, TEMPLATES
from schemas.names import Model

BATCH = 96  # lists written at once: a tenth more of them in a second than 32
SAMPLED_AT_ONCE = 256  # their prompt is read once, and stays in the cache of 1 GB while they are written


class ServedStudent:
    """The engine of `triton_models/student` on a folder of served weights."""

    def __init__(self, weights: Path, **settings: Any) -> None:
        engines, self._lists = _modules(Model.STUDENT, "engines", "lists")
        self._engine = engines.make_engine(self._lists.Settings(weights=weights, **settings))

    def write(self, prompts: Sequence[str]) -> list[str]:
        """The most likely list of each prompt; "" for one that cannot be written."""
        starts = range(0, len(prompts), BATCH)
        rows = (self._write([(prompt, 1, 0) for prompt in prompts[at : at + BATCH]]) for at in starts)
        return [texts[0] for part in rows for texts in part]

    def sample(self, prompts: Sequence[str], count: int, *, seed: int) -> list[tuple[str, ...]]:
        """`count` lists for each prompt, each prompt with a chance of its own; the same seed repeats them.

        A greedy list of each prompt comes first: it leaves the prompt in the engine's cache, where the samples find
        it. Without it each sample would read the prompt again (measured with 31 samples: 2.5 times as long).
        """
        size = max(1, SAMPLED_AT_ONCE // count)
        found: list[tuple[str, ...]] = []
        for start in range(0, len(prompts), size):
            part = prompts[start : start + size]
            self.write(part)
            found += self._write([(prompt, count, _seed_of(seed, prompt)) for prompt in part])
        return found

    def _write(self, tasks: Sequence[tuple[str, int, int]]) -> list[tuple[str, ...]]:
        answers = self._engine.write([self._lists.Task(*task) for task in tasks])
        rows = zip(tasks, answers, strict=True)
        return [tuple(answer) if isinstance(answer, list) else ("",) * count for (_, count, _), answer in rows]


def _seed_of(seed: int, prompt: str) -> int:
    """Far apart, since the engine gives the samples of a task seed, seed + 1, ...; not 0, which is greedy."""
    return zlib.crc32(f"{seed} {prompt}".encode()) << 8 | 1


class ServedCleaner:
    """The engine of `triton_models/cleaner` on a folder of served weights."""

    def __init__(self, weights: Path, *, threads: int = 1, precision: str = "f32") -> None:
        (engines,) = _modules(Model.CLEANER, "engines")
        self._engine = engines.OpenVinoEngine(weights, threads, precision)

    def judge(self, texts: list[str]) -> NDArray[np.float32]:
        """[n], the probability of noise."""
        found: NDArray[np.float32] = self._engine.judge(texts) if texts else np.empty(0, np.float32)
        return found


def _modules(model: str, *names: str) -> tuple[ModuleType, ...]:
    folder = str(TEMPLATES / model / TEMPLATE_VERSION)
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.path.insert(0, folder)
    try:
        return tuple(importlib.import_module(name) for name in names)
    finally:
        sys.path.remove(folder)
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)
