"""A stand-in for `triton_python_backend_utils`, which exists in Triton's stub only."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np


class Tensor:
    def __init__(self, name: str, values: Any) -> None:
        self.name, self.values = name, values

    def as_numpy(self) -> Any:
        return self.values


class TritonError:
    INTERNAL, INVALID_ARG = 1, 2

    def __init__(self, message: str, code: int) -> None:
        self.message, self.code = message, code


class InferenceResponse:
    def __init__(self, output_tensors: list[Tensor] | None = None, error: TritonError | None = None) -> None:
        self.error = error
        self.outputs = {tensor.name: tensor.values for tensor in output_tensors or []}


Request = Mapping[str, Any]


def request(**columns: list[Any]) -> Request:
    """A request with one column of rows for each input."""
    return {
        name: Tensor(name, np.array(rows, dtype=object if isinstance(rows[0], bytes) else None).reshape(-1, 1))
        for name, rows in columns.items()
    }


def backend_module() -> ModuleType:
    module = ModuleType("triton_python_backend_utils")
    vars(module).update(
        Tensor=Tensor,
        TritonError=TritonError,
        InferenceResponse=InferenceResponse,
        get_input_tensor_by_name=lambda request, name: request.get(name),
    )
    return module
