"""The settings that a command runs with: file, environment, and below them the addresses of a running local stack."""

import os
from collections.abc import Mapping
from pathlib import Path

from keenstream.stack.folders import demo_folder, state_folder
from keenstream.stack.state import live_state
from schemas.config import Config, load_config

CONFIG_VARIABLE = "KEENSTREAM_CONFIG"
KEY_VARIABLE = "KEENSTREAM_API_KEY"


def resolve_config(environment: Mapping[str, str] = os.environ) -> Config:
    """Defaults < addresses of this folder's running stack < environment; a file named by KEENSTREAM_CONFIG stands in
    the stack's place, since who names one does not mean the laptop's servers."""
    named = environment.get(CONFIG_VARIABLE)
    if named:
        return load_config(Path(named), environment)
    home = state_folder(environment)
    running = live_state(home) or live_state(demo_folder(home))
    return load_config(None, {**(running.environment if running else {}), **environment})


def api_headers(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a client of the API sends: the key in the environment, which no command line shows; nothing without one."""
    key = environment.get(KEY_VARIABLE, "")
    return {"x-api-key": key} if key else {}


def archive_folder(config: Config, environment: Mapping[str, str] = os.environ) -> Path:
    """Where the archive is; all its workers and commands must name the same folder."""
    return state_folder(environment) / config.archive.folder  # an absolute one stays as it is
