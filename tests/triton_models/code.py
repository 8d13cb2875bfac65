"""The served models' code, loaded as Triton's stub does: with the model's own folder first on the path."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from offline.release.repository import TEMPLATE_VERSION, TEMPLATES

OWN_MODULES = ("model", "engines", "lists")


@contextmanager
def served_code(model: str, **doubles: Any) -> Iterator[None]:
    """Inside, `load` imports from the folder of `model`; `doubles` stand for modules that only the stub has."""
    folder = str(TEMPLATES / model / TEMPLATE_VERSION)
    before = {name: sys.modules.pop(name) for name in OWN_MODULES if name in sys.modules}
    sys.path.insert(0, folder)
    sys.modules.update(doubles)
    try:
        yield
    finally:
        sys.path.remove(folder)
        for name in (*OWN_MODULES, *doubles):
            sys.modules.pop(name, None)
        sys.modules.update(before)


def load(name: str) -> ModuleType:
    return importlib.import_module(name)
