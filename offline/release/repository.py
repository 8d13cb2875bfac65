"""Triton's model repository, put together from the templates in `triton_models/` and folders of weights."""

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from offline.release.folders import build_folder, link_files
from schemas.errors import UsageError
from schemas.names import Model

TEMPLATES = Path(__file__).parents[2] / "triton_models"
TEMPLATE_VERSION = "1"
CONFIGURATION = "config.pbtxt"

Parameters = Mapping[str, str]


def assemble_repository(
    target: Path, weights: Mapping[str, Path], *, version: int = 1, parameters: Mapping[str, Parameters] | None = None
) -> None:
    """Put each model with its folder of weights into the repository `target` as `version`.

    May be repeated at any time, also beside a running server: a version appears whole, other versions stay.
    `parameters` replaces values of the model's configuration, by model and name.
    """
    if wrong := set(weights) - {Model.STUDENT, Model.EMBEDDER, Model.CLEANER}:
        raise UsageError(f"no template for {', '.join(sorted(wrong))} in {TEMPLATES}")
    for model, folder in weights.items():
        add_version(target, model, folder, version=version, parameters=(parameters or {}).get(model, {}))


def add_version(target: Path, model: str, weights: Path, *, version: int, parameters: Parameters | None = None) -> Path:
    """Write the folder `target/model/version` and the model's configuration.

    A running server takes it up at the next load of the model; do not unload first, that fails requests.
    """
    template, place = TEMPLATES / model, target / model / str(version)
    configuration = set_parameters((template / CONFIGURATION).read_text(encoding="utf-8"), parameters or {})

    def fill(folder: Path) -> None:
        for code in sorted((template / TEMPLATE_VERSION).glob("*.py")):
            shutil.copyfile(code, folder / code.name)
        link_files(weights, folder / "weights")

    place.parent.mkdir(parents=True, exist_ok=True)
    # outside the repository: a stray folder in there ends the server
    build_folder(place, fill, scratch_in=target.parent)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        written = Path(scratch) / CONFIGURATION
        written.write_text(configuration, encoding="utf-8")
        written.replace(target / model / CONFIGURATION)
    return place


def served_models(repository: Path) -> tuple[str, ...]:
    """The models that a server of `repository` can load."""
    return tuple(sorted(place.parent.name for place in repository.glob(f"*/{CONFIGURATION}")))


def set_parameters(configuration: str, parameters: Parameters) -> str:
    """The text of a config.pbtxt with other values for the named parameters."""
    for name, value in parameters.items():
        line = re.search(rf'parameters {{ key: "{re.escape(name)}"\s+value {{ string_value: "([^"]*)', configuration)
        if line is None:
            raise UsageError(f"{CONFIGURATION} has no parameter {name!r}")
        configuration = configuration[: line.start(1)] + value + configuration[line.end(1) :]
    return configuration
