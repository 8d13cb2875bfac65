"""The code of the student and the cleaner as served, in this process: what Triton will run, from the same folder.

Triton's stub puts the model's own folder first on the path, so its modules import each other by bare names; the same is
done here for the length of the import, and nothing of it stays behind.
"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline.release.repository import TEMPLATE_VERSION, TEMPLATES
from schemas.names import Model

BATCH = 32  # prompts at once, as Triton's batcher does


class ServedStudent:
    """The engine of `triton_models/student` on a folder of served weights."""

    def __init__(self, weights: Path, **settings: Any) -> None:
        engines, self._lists = _modules(Model.STUDENT, "engines", "lists")
        self._engine = engines.make_engine(self._lists.Settings(weights=weights, **settings))

    def write(self, prompts: Sequence[str]) -> list[str]:
        """The most likely list of each prompt; "" for one that cannot be written."""
        return [texts[0] for texts in self._write(prompts, 1, 0)]

    def sample(self, prompts: Sequence[str], count: int, *, seed: int) -> list[tuple[str, ...]]:
        """`count` lists for each prompt; the same seed, which is not 0, repeats them."""
        return self._write(prompts, count, seed)

    def _write(self, prompts: Sequence[str], count: int, seed: int) -> list[tuple[str, ...]]:
        found: list[tuple[str, ...]] = []
        for start in range(0, len(prompts), BATCH):
            tasks = [self._lists.Task(prompt, count, seed) for prompt in prompts[start : start + BATCH]]
            answers = self._engine.write(tasks)
            found += [tuple(answer) if isinstance(answer, list) else ("",) * count for answer in answers]
        return found


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
