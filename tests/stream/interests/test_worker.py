"""What the interest worker asks before its first batch."""

from schemas.clients.breaker import Breaker, GuardedStudent
from schemas.clients.memory_models import MemoryEmbedder
from schemas.clients.memory_store import MemoryStore
from schemas.errors import PermanentError, Unavailable
from schemas.prompt import BARE, EXAMPLES, render_prompt
from stream.interests.lists import ListWriter
from stream.interests.worker import first_prompt
from stream.producer import MemoryProducer
from tests.stream.interests.test_writers import NOW, SETTINGS, ScriptedStudent, profile, request


async def test_the_first_batch_is_asked_once_by_the_prompt_that_the_model_reads() -> None:
    student = ScriptedStudent("heat pump prices; gas boiler ban")
    student.prompt_version = BARE
    prompt = await first_prompt(student)
    student.calls.clear()
    guarded = GuardedStudent(student, Breaker(failures=3, reset_seconds=0.01))
    writer = ListWriter(SETTINGS, guarded, MemoryEmbedder(), MemoryStore(), MemoryProducer(), lambda: NOW, prompt)
    await writer.process([request("roses")])
    assert [prompts for prompts, _ in student.calls] == [[render_prompt(profile("roses"), BARE)]]


async def test_a_model_that_does_not_answer_is_not_waited_for() -> None:
    assert await first_prompt(ScriptedStudent(Unavailable("away"))) == EXAMPLES
    assert await first_prompt(ScriptedStudent(PermanentError("too long"))) == EXAMPLES


async def test_a_prompt_that_this_code_lacks_is_left_to_the_first_batch() -> None:
    student = ScriptedStudent("a; b")
    student.prompt_version = "bare-0"
    assert await first_prompt(student) == EXAMPLES
