"""The converters of the models on their own, with doubles for the engine and for Triton's stub."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.triton_models.code import load, served_code
from tests.triton_models.triton_doubles import TritonError, backend_module, request

with served_code("student", triton_python_backend_utils=backend_module()):
    student: ModuleType = load("model")
with served_code("embedder", triton_python_backend_utils=backend_module()):
    embedder: ModuleType = load("model")
with served_code("cleaner", triton_python_backend_utils=backend_module()):
    cleaner: ModuleType = load("model")


class Echo:
    """Answers with the prompt, refuses "bad", breaks on "break"; remembers the sizes of its batches."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def write(self, tasks: Sequence[Any]) -> list[list[str] | ValueError]:
        self.batches.append(len(tasks))
        if any(task.prompt == "break" for task in tasks):
            raise RuntimeError("out of memory")
        return [ValueError("no") if task.prompt == "bad" else [task.prompt] * task.samples for task in tasks]

    def encode(self, texts: Sequence[str]) -> Any:
        self.batches.append(len(texts))
        return np.array([[float(text)] * 384 for text in texts], np.float32)

    def judge(self, texts: Sequence[str]) -> Any:
        self.batches.append(len(texts))
        return np.array([float(text) for text in texts], np.float32)


@pytest.fixture
def model() -> Any:
    served = student.TritonPythonModel()
    served.engine, served.model_version, served.prompt_version = Echo(), "tiny-1", "examples-1"
    return served


@pytest.fixture
def vectors() -> Any:
    served = embedder.TritonPythonModel()
    served.engine, served.model_version = Echo(), b"mini-1"
    return served


def test_a_batch_of_requests_is_one_write(model: Any) -> None:
    responses = model.execute([request(prompt=[b"a"]), request(prompt=[b"b", b"c"])])
    assert model.engine.batches == [3]
    assert [response.outputs["completion"].tolist() for response in responses] == [[[b"a"]], [[b"b"], [b"c"]]]
    assert responses[1].outputs["model_version"].tolist() == [[b"tiny-1"]] * 2
    assert responses[1].outputs["prompt_version"].tolist() == [[b"examples-1"]] * 2


def test_samples_are_the_columns_of_the_answer(model: Any) -> None:
    (response,) = model.execute([request(prompt=[b"a"], samples=[3], seed=[1])])
    assert response.outputs["completion"].shape == (1, 3)


@pytest.mark.parametrize(
    "bad",
    [
        request(prompt=[b"bad"]),
        request(prompt=[b"\xff\xfe"]),
        request(prompt=[b"a", b"b"], samples=[1, 2]),
    ],
)
def test_a_bad_request_fails_alone(model: Any, bad: Any) -> None:
    good, failed, after = model.execute([request(prompt=[b"a"]), bad, request(prompt=[b"b"])])
    assert failed.error.code == TritonError.INVALID_ARG
    assert good.outputs["completion"].tolist() == [[b"a"]]
    assert after.outputs["completion"].tolist() == [[b"b"]]


def test_a_failing_engine_is_told_to_every_caller(model: Any) -> None:
    responses = model.execute([request(prompt=[b"a"]), request(prompt=[b"break"])])
    assert [response.error.code for response in responses] == [TritonError.INTERNAL] * 2
    assert "out of memory" in responses[0].error.message


def test_the_embedder_encodes_a_batch_at_once_and_a_bad_text_fails_alone(vectors: Any) -> None:
    first, bad, last = vectors.execute([request(text=[b"1"]), request(text=[b"\xff"]), request(text=[b"2", b"3"])])
    assert vectors.engine.batches == [3]
    assert bad.error.code == TritonError.INVALID_ARG
    assert first.outputs["embedding"][:, 0].tolist() == [1]
    assert last.outputs["embedding"][:, 0].tolist() == [2, 3]
    assert last.outputs["model_version"].tolist() == [[b"mini-1"]] * 2


def test_the_cleaner_judges_a_batch_at_once_and_a_bad_text_fails_alone() -> None:
    served = cleaner.TritonPythonModel()
    served.engine, served.model_version = Echo(), b"clean-1"
    first, bad, last = served.execute([request(text=[b"0.5"]), request(text=[b"\xff"]), request(text=[b"0", b"1"])])
    assert served.engine.batches == [3]
    assert bad.error.code == TritonError.INVALID_ARG
    assert first.outputs["noise"].tolist() == [[0.5]]
    assert last.outputs["noise"].tolist() == [[0.0], [1.0]]
    assert last.outputs["model_version"].tolist() == [[b"clean-1"]] * 2
    (broken,) = served.execute([request(text=[b"no number"])])
    assert broken.error.code == TritonError.INTERNAL
