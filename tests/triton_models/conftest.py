import pytest

from keenstream.stack.folders import state_folder
from offline.release.models import ModelPaths, build_untrained


@pytest.fixture(scope="session")
def paths() -> ModelPaths:
    """The real small models, built once for the state folder; the student is the base, in float32 too."""
    return build_untrained(state_folder(), lambda step: None)
