"""A model without weights for tests of the server: answers with its input, and dies when asked to."""

import os
from collections.abc import Sequence
from typing import Any

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests: Sequence[Any]) -> list[Any]:
        return [self._answer(pb_utils.get_input_tensor_by_name(request, "text").as_numpy()) for request in requests]

    def _answer(self, text: Any) -> Any:
        if text.ravel()[0] == b"die":
            os._exit(1)
        return pb_utils.InferenceResponse([pb_utils.Tensor("text_out", text)])
