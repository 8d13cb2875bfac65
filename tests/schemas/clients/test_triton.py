import asyncio
import time

import pytest
from tritonclient.utils import InferenceServerException

from keenstream.stack.ports import LOCAL, free_ports
from schemas.clients.models import Completion
from schemas.clients.triton import TritonEmbedder, TritonStudent, as_keenstream_error, probe_embedder, probe_student
from schemas.errors import KeenstreamError, Overloaded, PermanentError, RetryableError, Unavailable

PROMPT = "Searches: flights to lisbon; passport renewal\nNews searches:"


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        ("INVALID_ARGUMENT", "the prompt is empty", PermanentError),
        ("RESOURCE_EXHAUSTED", "message larger than max", PermanentError),
        ("UNAVAILABLE", "[request id: <id_unknown>] Exceeds maximum queue size", Overloaded),
        ("UNAVAILABLE", "Request timeout expired", Overloaded),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", Overloaded),
        ("UNAVAILABLE", "failed to connect to all addresses", Unavailable),
        ("INTERNAL", "Stub process is not healthy", Unavailable),
        ("NOT_FOUND", "Request for unknown model", Unavailable),
        ("CANCELLED", "CANCELLED", Unavailable),
    ],
)
def test_the_servers_errors_become_ours(status: str, message: str, kind: type[KeenstreamError]) -> None:
    error = as_keenstream_error(InferenceServerException(message, f"StatusCode.{status}"), "student", "127.0.0.1:1")
    assert type(error) is kind
    assert message in str(error)


async def test_a_server_that_is_away_is_said_so_within_the_deadline() -> None:
    address = f"{LOCAL}:{free_ports(1)[0]}"
    student = TritonStudent(address, deadline_seconds=1.0)
    began = time.monotonic()
    (answer,) = await student.write([PROMPT])
    assert isinstance(answer, Unavailable)
    assert address in str(answer)
    assert time.monotonic() - began < 20.0
    with pytest.raises(Unavailable):
        await TritonEmbedder(address, deadline_seconds=0.3).embed(["news"])
    with pytest.raises(Unavailable):
        await probe_student(address, deadline_seconds=0.3)
    await student.close()


@pytest.mark.stack
async def test_probes_pass_on_a_server_that_works(triton: str) -> None:
    await probe_student(triton, deadline_seconds=20.0)
    await probe_embedder(triton)


@pytest.mark.stack
async def test_a_passed_deadline_is_an_error_to_be_retried_and_leaves_the_server_well(triton: str) -> None:
    hasty, patient = TritonStudent(triton, deadline_seconds=0.02), TritonStudent(triton)
    answers = await hasty.write([PROMPT] * 4)
    assert all(isinstance(answer, RetryableError) for answer in answers)
    (answer,) = await patient.write([PROMPT])
    assert isinstance(answer, Completion)
    await asyncio.gather(hasty.close(), patient.close())


@pytest.mark.stack
async def test_a_closed_client_connects_again(triton: str) -> None:
    embedder = TritonEmbedder(triton)
    await embedder.embed(["news"])
    await embedder.close()
    assert len(await embedder.embed(["news"])) == 1
    await embedder.close()
