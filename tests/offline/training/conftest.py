import pytest
import torch

from offline.training.material import Material
from offline.training.progress import Progress
from offline.training.stage import Session
from offline.training.tiny import write_tiny
from tests.offline.training import world


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Of torch: for matrices this small a second one only waits, and the more the busier the machine is."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of random weights with the world's tokenizer."""
    tokenizer, folder = tmp_path_factory.mktemp("tokenizer"), tmp_path_factory.mktemp("base")
    world.write_tokenizer(tokenizer)
    write_tiny(tokenizer, folder)
    return str(folder)


@pytest.fixture(scope="session")
def material() -> Material:
    return world.material()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def seen() -> list[Progress]:
    return []


@pytest.fixture
def session(told: list[str], seen: list[Progress]) -> Session:
    return Session(device="cpu", watch=seen.append, tell=told.append, now_ms=1_700_000_000_000)
