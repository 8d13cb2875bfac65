"""The models behind Triton's gRPC: deadlines, a few jittered retries, and the server's errors as ours.

Each prompt is a request of its own: Triton's batcher puts those that wait together into one batch, and a bad one fails
alone. Retries end with the deadline; what to do then (pause, back off) is the caller's decision.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from schemas.clients.access import Server, triton_headers, triton_options, triton_settings
from schemas.clients.models import Answer, Completion, Verdicts
from schemas.errors import KeenstreamError, Overloaded, PermanentError, RetryableError, Unavailable
from schemas.names import EMBEDDING_DIMENSIONS, Model, Tensor

ATTEMPTS = 4
JUDGED_CHARACTERS = 1_000  # of a text; the cleaner reads fewer
NOISE_FROM = 0.5  # the threshold that training chose is in the cleaner's weights
FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 2.0
SHORTEST_CALL_SECONDS = 0.001
QUEUE_IS_FULL = ("Exceeds maximum queue size", "Request timeout expired")
PERMANENT = {"StatusCode.INVALID_ARGUMENT", "StatusCode.OUT_OF_RANGE", "StatusCode.RESOURCE_EXHAUSTED"}


def as_keenstream_error(error: InferenceServerException, model: str, address: str) -> KeenstreamError:
    """What the caller can do about it: fix the input, slow down, or wait for the server."""
    status, message = error.status() or "", error.message() or ""
    if status in PERMANENT:
        return PermanentError(f"{model}: {message}")
    if any(sign in message for sign in QUEUE_IS_FULL) or status == "StatusCode.DEADLINE_EXCEEDED":
        return Overloaded(f"{model} at {address} is too busy: {message or 'the deadline passed'}; send less or later")
    return Unavailable(f"{model} at {address} does not answer ({status} {message}): see `keenstream stack status`")


class TritonModel:
    """One model of one server; connects at the first call, so that it can be made outside an event loop."""

    def __init__(
        self,
        server: Server,
        model: str,
        *,
        deadline_seconds: float,
        attempts: int = ATTEMPTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address, self.model, self.deadline_seconds = triton_settings(server).grpc_address, model, deadline_seconds
        self._attempts = attempts
        self._options, self._headers = triton_options(server), triton_headers(server)
        self._clock = clock
        self._client: InferenceServerClient | None = None

    async def infer(self, inputs: list[Any]) -> Any:
        """The result, or PermanentError at once, or RetryableError after the deadline or a few attempts."""
        ends = self._clock() + self.deadline_seconds
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(RetryableError),
            wait=wait_random_exponential(multiplier=FIRST_WAIT_SECONDS, max=LONGEST_WAIT_SECONDS),
            stop=stop_after_attempt(self._attempts) | stop_before_delay(self.deadline_seconds),
            reraise=True,
        ):
            with attempt:
                return await self._once(inputs, max(SHORTEST_CALL_SECONDS, ends - self._clock()))
        raise AssertionError("tenacity ends with a result or an error")

    async def _once(self, inputs: list[Any], left_seconds: float) -> Any:
        self._client = self._client or InferenceServerClient(**self._options)
        try:
            return await self._client.infer(
                self.model,
                inputs,
                headers=self._headers,
                client_timeout=left_seconds,
                timeout=int(left_seconds * 1e6),  # the queue gives it up at the same time
            )
        except InferenceServerException as error:
            raise as_keenstream_error(error, self.model, self.address) from error

    async def close(self) -> None:
        if self._client:
            await self._client.close()
            self._client = None


class TritonStudent:
    """`Student` on Triton. `deadline_seconds` is for one prompt with its retries."""

    def __init__(self, server: Server, *, deadline_seconds: float = 30.0, concurrency: int = 64) -> None:
        self._model = TritonModel(server, Model.STUDENT, deadline_seconds=deadline_seconds)
        self._slots = asyncio.Semaphore(concurrency)

    async def write(self, prompts: Sequence[str], *, samples: int = 1, seed: int = 0) -> list[Answer]:
        return list(await asyncio.gather(*(self._write_one(prompt, samples, seed) for prompt in prompts)))

    async def _write_one(self, prompt: str, samples: int, seed: int) -> Answer:
        inputs = [
            _column(Tensor.PROMPT, "BYTES", [_utf8(prompt)]),
            _column(Tensor.SAMPLES, "INT32", [samples]),
            _column(Tensor.SEED, "INT64", [seed]),
        ]
        async with self._slots:
            try:
                result = await self._model.infer(inputs)
            except (PermanentError, RetryableError) as error:
                return error
        return Completion(
            texts=tuple(text.decode() for text in result.as_numpy(Tensor.COMPLETION)[0]),
            model_version=result.as_numpy(Tensor.MODEL_VERSION)[0, 0].decode(),
            prompt_version=result.as_numpy(Tensor.PROMPT_VERSION)[0, 0].decode(),
        )

    async def close(self) -> None:
        await self._model.close()


class TritonEmbedder:
    """`Embedder` on Triton, in requests of at most `rows` texts: the model's largest batch."""

    def __init__(self, server: Server, *, deadline_seconds: float = 10.0, rows: int = 64) -> None:
        self._model = TritonModel(server, Model.EMBEDDER, deadline_seconds=deadline_seconds)
        self._rows, self._version = rows, ""

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        parts = [texts[start : start + self._rows] for start in range(0, len(texts), self._rows)]
        vectors = [await self._embed_part(part) for part in parts]
        return np.concatenate(vectors) if vectors else np.empty((0, EMBEDDING_DIMENSIONS), np.float32)

    async def version(self) -> str:
        if not self._version:
            await self.embed([""])
        return self._version

    async def _embed_part(self, texts: Sequence[str]) -> NDArray[np.float32]:
        result = await self._model.infer([_column(Tensor.TEXT, "BYTES", [_utf8(text) for text in texts])])
        self._version = result.as_numpy(Tensor.MODEL_VERSION)[0, 0].decode()
        vectors: NDArray[np.float32] = result.as_numpy(Tensor.EMBEDDING)
        return vectors

    async def close(self) -> None:
        await self._model.close()


class TritonCleaner:
    """`Cleaner` on Triton, in requests of at most `rows` texts: the model's largest batch.

    A failed call is not repeated: whoever asks goes on with the rules alone sooner than it would have waited.
    """

    def __init__(self, server: Server, *, deadline_seconds: float = 2.0, rows: int = 128) -> None:
        self._model = TritonModel(server, Model.CLEANER, deadline_seconds=deadline_seconds, attempts=1)
        self._rows = rows

    async def judge(self, texts: Sequence[str]) -> Verdicts:
        noise: list[bool] = []
        version = ""
        for start in range(0, len(texts), self._rows):
            part = [_utf8(text[:JUDGED_CHARACTERS]) for text in texts[start : start + self._rows]]
            result = await self._model.infer([_column(Tensor.TEXT, "BYTES", part)])
            noise.extend(bool(share >= NOISE_FROM) for share in result.as_numpy(Tensor.NOISE)[:, 0])
            version = result.as_numpy(Tensor.MODEL_VERSION)[0, 0].decode()
        return Verdicts(noise=tuple(noise), model_version=version)

    async def close(self) -> None:
        await self._model.close()


async def probe_student(address: str, *, deadline_seconds: float = 5.0) -> None:
    """A real list within the deadline, or RetryableError: Triton's own health stays green when a model has died."""
    student = TritonStudent(address, deadline_seconds=deadline_seconds)
    try:
        answer = (await student.write(["News searches:"]))[0]
    finally:
        await student.close()
    if not isinstance(answer, Completion):
        raise answer if isinstance(answer, RetryableError) else Unavailable(f"the student refuses its probe: {answer}")


async def probe_embedder(address: str, *, deadline_seconds: float = 5.0) -> None:
    """A real vector within the deadline, or RetryableError."""
    embedder = TritonEmbedder(address, deadline_seconds=deadline_seconds)
    try:
        await embedder.embed(["news"])
    finally:
        await embedder.close()


def _column(name: str, kind: str, values: Sequence[Any]) -> Any:
    types = {"BYTES": np.object_, "INT32": np.int32, "INT64": np.int64}
    tensor = InferInput(name, [len(values), 1], kind)
    tensor.set_data_from_numpy(np.array(values, dtype=types[kind]).reshape(-1, 1))
    return tensor


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", errors="replace")  # half a surrogate pair in a reader's text must not stop the others
