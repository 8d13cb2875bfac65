import pytest
from google.protobuf import text_format  # type: ignore[import-untyped]  # its stubs are a package of their own
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelQueuePolicy

from offline.release.repository import CONFIGURATION, TEMPLATE_VERSION, TEMPLATES
from schemas.names import EMBEDDING_DIMENSIONS, Model, Tensor

MODELS = [Model.STUDENT, Model.EMBEDDER, Model.CLEANER]


def configuration(model: str) -> ModelConfig:
    return text_format.Parse((TEMPLATES / model / CONFIGURATION).read_text(encoding="utf-8"), ModelConfig())


def tensors(ports: list[object]) -> dict[str, tuple[str, list[int]]]:
    return {port.name: (DataType.Name(port.data_type), list(port.dims)) for port in ports}  # type: ignore[attr-defined]


def test_student_tensors_are_those_of_names() -> None:
    student = configuration(Model.STUDENT)
    assert tensors(student.input) == {
        Tensor.PROMPT: ("TYPE_STRING", [1]),
        Tensor.SAMPLES: ("TYPE_INT32", [1]),
        Tensor.SEED: ("TYPE_INT64", [1]),
    }
    assert tensors(student.output) == {
        Tensor.COMPLETION: ("TYPE_STRING", [-1]),
        Tensor.MODEL_VERSION: ("TYPE_STRING", [1]),
        Tensor.PROMPT_VERSION: ("TYPE_STRING", [1]),
    }
    assert {port.name for port in student.input if port.optional} == {Tensor.SAMPLES, Tensor.SEED}


def test_embedder_tensors_are_those_of_names() -> None:
    embedder = configuration(Model.EMBEDDER)
    assert tensors(embedder.input) == {Tensor.TEXT: ("TYPE_STRING", [1])}
    assert tensors(embedder.output) == {
        Tensor.EMBEDDING: ("TYPE_FP32", [EMBEDDING_DIMENSIONS]),
        Tensor.MODEL_VERSION: ("TYPE_STRING", [1]),
    }


def test_cleaner_tensors_are_those_of_names() -> None:
    cleaner = configuration(Model.CLEANER)
    assert tensors(cleaner.input) == {Tensor.TEXT: ("TYPE_STRING", [1])}
    assert tensors(cleaner.output) == {Tensor.NOISE: ("TYPE_FP32", [1]), Tensor.MODEL_VERSION: ("TYPE_STRING", [1])}


@pytest.mark.parametrize("model", MODELS)
def test_requests_are_batched_and_a_full_queue_refuses(model: str) -> None:
    config = configuration(model)
    policy = config.dynamic_batching.default_queue_policy
    assert config.name == model
    assert not config.model_transaction_policy.decoupled
    assert config.max_batch_size >= 32
    assert 0 < config.dynamic_batching.max_queue_delay_microseconds <= 20_000
    assert policy.timeout_action == ModelQueuePolicy.REJECT
    assert policy.default_timeout_microseconds > 0
    assert policy.max_queue_size > 0


def test_the_repository_holds_only_models() -> None:
    """A stray folder makes Triton exit."""
    assert {path.name for path in TEMPLATES.iterdir() if path.is_dir()} == set(MODELS)


@pytest.mark.parametrize("model", MODELS)
def test_the_server_side_only_converts_and_delegates(model: str) -> None:
    lines = (TEMPLATES / model / TEMPLATE_VERSION / "model.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 90
