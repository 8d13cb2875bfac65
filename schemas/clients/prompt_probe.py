"""Which rendering a served student reads: it says so itself with each answer, so it is asked for one."""

from typing import Final

from schemas.clients.models import Completion, Student
from schemas.prompt import PromptVersion, known_prompt

PROBE: Final = "News searches:"


async def prompt_of_served(student: Student) -> PromptVersion:
    """Asked of the model behind `student`; raises its error, or Unavailable for a prompt that this code lacks."""
    (answer,) = await student.write([PROBE])
    if not isinstance(answer, Completion):
        raise answer
    return known_prompt(answer.prompt_version)
