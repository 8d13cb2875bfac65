import pytest

from keenstream.stack.folders import state_folder
from offline.release.models import ModelPaths, build_models


@pytest.fixture(scope="session")
def paths() -> ModelPaths:
    """The real small models, built once for the state folder."""
    return build_models(state_folder(), lambda step: None)
