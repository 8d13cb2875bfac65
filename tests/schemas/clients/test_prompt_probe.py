import pytest

from schemas.clients.memory_models import MemoryStudent
from schemas.clients.prompt_probe import prompt_of_served
from schemas.errors import Unavailable
from schemas.prompt import EXAMPLES


async def test_a_served_model_says_which_prompt_it_reads() -> None:
    assert await prompt_of_served(MemoryStudent()) == EXAMPLES
    with pytest.raises(Unavailable, match="away"):
        await prompt_of_served(MemoryStudent(failures=[Unavailable("away")]))
