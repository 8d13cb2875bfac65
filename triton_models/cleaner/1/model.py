"""Tensors to texts and probabilities to tensors: one call for all requests of a batch. One bad request fails alone."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from engines import Probabilities, make_engine


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        folder = Path(args["model_repository"]) / args["model_version"]
        configured = json.loads(args["model_config"])["parameters"]
        parameters = {name: value["string_value"] for name, value in configured.items()}
        manifest = json.loads((folder / parameters["weights"] / "manifest.json").read_text())
        self.model_version = f"{manifest['name']}-{manifest['version']}".encode()
        self.engine = make_engine(parameters, folder)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        groups = [read_texts(request) for request in requests]
        texts = [text for group in groups if group is not None for text in group]
        try:
            noise = self.engine.judge(texts) if texts else np.empty(0, np.float32)
        except Exception as error:  # the engine's own failure; it is told to every caller, and the server goes on
            return [failed(f"the engine failed: {error}", pb_utils.TritonError.INTERNAL) for _ in requests]
        responses, start = [], 0
        for group in groups:
            if group is None:
                responses.append(failed("the text is not UTF-8", pb_utils.TritonError.INVALID_ARG))
                continue
            responses.append(self._respond(noise[start : start + len(group)]))
            start += len(group)
        return responses

    def _respond(self, noise: Probabilities) -> Any:
        versions = np.array([[self.model_version]] * len(noise), dtype=np.object_)
        rows = np.ascontiguousarray(noise, dtype=np.float32).reshape(-1, 1)
        return pb_utils.InferenceResponse([pb_utils.Tensor("noise", rows), pb_utils.Tensor("model_version", versions)])


def read_texts(request: Any) -> list[str] | None:
    rows = pb_utils.get_input_tensor_by_name(request, "text").as_numpy()
    try:
        return [row[0].decode("utf-8") for row in rows]
    except UnicodeDecodeError:
        return None


def failed(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
