"""The student's served code in this process: what Triton will run, from the folder it will run it from.

Triton's stub puts the model's own folder first on the path, so its modules import each other by bare names; the same is
done here for the length of the import, and nothing of it stays behind.
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from offline.release.repository import TEMPLATE_VERSION, TEMPLATES
from schemas.names import Model

_OWN = ("engines", "lists")


class ServedStudent:
    """The engine of `triton_models/student` on a folder of served weights."""

    def __init__(self, weights: Path, **settings: Any) -> None:
        engines, self._lists = _modules(TEMPLATES / Model.STUDENT / TEMPLATE_VERSION)
        self._engine = engines.make_engine(self._lists.Settings(weights=weights, **settings))

    def write(self, prompts: list[str]) -> list[str]:
        """The most likely list of each prompt; "" for one that cannot be written."""
        answers = self._engine.write([self._lists.Task(prompt) for prompt in prompts])
        return [answer[0] if isinstance(answer, list) else "" for answer in answers]


def _modules(folder: Path) -> tuple[ModuleType, ModuleType]:
    before = {name: sys.modules.pop(name) for name in _OWN if name in sys.modules}
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("engines"), importlib.import_module("lists")
    finally:
        sys.path.remove(str(folder))
        for name in _OWN:
            sys.modules.pop(name, None)
        sys.modules.update(before)
