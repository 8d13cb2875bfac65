"""Two engines behind one call: texts in, probabilities of noise out. Chosen by `engine` in config.pbtxt.

This file sees site-packages and its own folder only.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.float32]

LONGEST_CHARACTERS = 1_000  # more than the tokens that are read ever need
DROP = "drop"  # the label of noise


class Engine(Protocol):
    def judge(self, texts: Sequence[str]) -> Probabilities:
        """[n], in the order of `texts`."""
        ...


class OpenVinoEngine:
    """The graph made by offline/release; its tokenizer cuts and pads as the weights were trained."""

    def __init__(self, weights: Path, threads: int, precision: str) -> None:
        import openvino as ov
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
        core = ov.Core()
        auto = "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
        properties = {
            "INFERENCE_NUM_THREADS": threads or len(os.sched_getaffinity(0)),
            "INFERENCE_PRECISION_HINT": auto if precision == "auto" else precision,
        }
        self._model: Any = core.compile_model(str(weights / "openvino_model.xml"), "CPU", properties)

    def judge(self, texts: Sequence[str]) -> Probabilities:
        rows = self._tokenizer.encode_batch([text[:LONGEST_CHARACTERS] for text in texts])
        ids = np.array([row.ids for row in rows], dtype=np.int64)
        mask = np.array([row.attention_mask for row in rows], dtype=np.int64)
        found: Probabilities = self._model({"input_ids": ids, "attention_mask": mask})[0]
        return found


class TransformersEngine:
    """A folder that `save_pretrained` wrote, float32."""

    def __init__(self, weights: Path, threads: int, precision: str) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        if precision not in ("auto", "f32"):
            raise ValueError(f"config.pbtxt: precision is {precision!r}, transformers compute in f32 here: choose f32")
        if threads:
            torch.set_num_threads(threads)
        self._torch: Any = torch
        self._tokenizer: Any = AutoTokenizer.from_pretrained(weights)
        self._model: Any = AutoModelForSequenceClassification.from_pretrained(weights, dtype=torch.float32).eval()
        self._drop = self._model.config.label2id[DROP]
        self._longest = min(self._tokenizer.model_max_length, 512)

    def judge(self, texts: Sequence[str]) -> Probabilities:
        cut = [text[:LONGEST_CHARACTERS] for text in texts]
        with self._torch.inference_mode():
            inputs = self._tokenizer(cut, padding=True, truncation=True, max_length=self._longest, return_tensors="pt")
            found: Probabilities = self._model(**inputs).logits.softmax(dim=1)[:, self._drop].numpy()
        return found


def make_engine(parameters: dict[str, str], folder: Path) -> Engine:
    """The engine that the `parameters` of config.pbtxt ask for; `weights` is relative to the version folder."""
    chosen, weights = parameters["engine"], folder / parameters["weights"]
    threads, precision = int(parameters["threads"]), parameters["precision"]
    if chosen == "openvino":
        return OpenVinoEngine(weights, threads, precision)
    if chosen == "transformers":
        return TransformersEngine(weights, threads, precision)
    raise ValueError(f"config.pbtxt: engine is {chosen!r}, choose openvino or transformers")
