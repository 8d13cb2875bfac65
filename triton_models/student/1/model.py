"""Tensors to tasks and lists to tensors; the writing is in engines.py. One bad request fails alone."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from engines import make_engine
from lists import Answer, Settings, Task

Reply = list[Task] | ValueError  # the tasks of one request, or why it has none


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        folder = Path(args["model_repository"]) / args["model_version"]
        parameters = json.loads(args["model_config"])["parameters"]
        settings = Settings.read({name: value["string_value"] for name, value in parameters.items()}, folder)
        manifest = json.loads((settings.weights / "manifest.json").read_text())
        self.model_version = f"{manifest['name']}-{manifest['version']}"
        self.prompt_version = manifest["prompt_version"]
        self.engine = make_engine(settings)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        replies = [read_tasks(request) for request in requests]
        tasks = [task for reply in replies if isinstance(reply, list) for task in reply]
        try:
            answers = iter(self.engine.write(tasks))
        except Exception as error:  # the engine's own failure; it is told to every caller, and the server goes on
            return [failed(f"the engine failed: {error}", pb_utils.TritonError.INTERNAL) for _ in requests]
        return [self._respond(reply, answers) for reply in replies]

    def _respond(self, reply: Reply, answers: Any) -> Any:
        lists: list[Answer] = [reply] if isinstance(reply, ValueError) else [next(answers) for _ in reply]
        wrong = [answer for answer in lists if isinstance(answer, ValueError)]
        if wrong:
            return failed(str(wrong[0]), pb_utils.TritonError.INVALID_ARG)
        rows = len(lists)
        return pb_utils.InferenceResponse(
            [
                text_tensor("completion", lists),
                text_tensor("model_version", [[self.model_version]] * rows),
                text_tensor("prompt_version", [[self.prompt_version]] * rows),
            ]
        )


def read_tasks(request: Any) -> Reply:
    """One task for each row; rows that ask for different numbers of samples do not fit one tensor."""
    try:
        prompts = [row[0].decode("utf-8") for row in column(request, "prompt")]
        samples = [int(row[0]) for row in column(request, "samples")] or [1] * len(prompts)
        seeds = [int(row[0]) for row in column(request, "seed")] or [0] * len(prompts)
        if len(set(samples)) > 1:
            return ValueError("samples differs between the rows of one request: send them as separate requests")
        return [Task(*row) for row in zip(prompts, samples, seeds, strict=True)]
    except UnicodeDecodeError:
        return ValueError("the prompt is not UTF-8")


def column(request: Any, name: str) -> Any:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return [] if tensor is None else tensor.as_numpy()


def text_tensor(name: str, rows: Sequence[Any]) -> Any:
    return pb_utils.Tensor(name, np.array([[text.encode() for text in row] for row in rows], dtype=np.object_))


def failed(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
