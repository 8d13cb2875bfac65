"""Where the stack keeps its state: `KEENSTREAM_HOME`, or `.keenstream` in the working directory."""

import os
from collections.abc import Mapping
from pathlib import Path

HOME_VARIABLE = "KEENSTREAM_HOME"


def state_folder(environment: Mapping[str, str] = os.environ) -> Path:
    return Path(environment.get(HOME_VARIABLE) or ".keenstream").absolute()


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """What can be fetched or built again: jars, unpacked servers. Shared by all runs of one state folder."""
    return state_folder(environment) / "cache"


def demo_folder(home: Path) -> Path:
    """The demo's own stack lives apart: it starts from nothing each time, and no user's data must be lost to that."""
    return home / "demo"
