"""The code of the student and the cleaner as served, in this process: what Triton will run, from the same folder.

Triton's stub puts the model's own folder first on the path, so its modules import each other by bare names; the same is
done here for the length of the import, and nothing of it stays behind.
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline.release.repository import TEMPLATE_VERSION, TEMPLATES
from schemas.names import Model


class ServedStudent:
    """The engine of `triton_models/student` on a folder of served weights."""

    def __init__(self, weights: Path, **settings: Any) -> None:
        engines, self._lists = _modules(Model.STUDENT, "engines", "lists")
        self._engine = engines.make_engine(self._lists.Settings(weights=weights, **settings))

    def write(self, prompts: list[str]) -> list[str]:
        """The most likely list of each prompt; "" for one that cannot be written."""
        answers = self._engine.write([self._lists.Task(prompt) for prompt in prompts])
        return [answer[0] if isinstance(answer, list) else "" for answer in answers]


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
