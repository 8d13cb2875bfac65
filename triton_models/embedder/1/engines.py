"""Two engines behind one call: texts in, vectors of length one out. Chosen by `engine` in config.pbtxt.

This file sees site-packages and its own folder only.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]

LONGEST_TOKENS = 256
LONGEST_CHARACTERS = 8_000  # more than LONGEST_TOKENS ever need; a text of a megabyte is not tokenised whole


class Engine(Protocol):
    def encode(self, texts: Sequence[str]) -> Vectors: ...


class OpenVinoEngine:
    """The graph made by offline/release: transformer, mean over the tokens, length one."""

    def __init__(self, weights: Path, threads: int, precision: str) -> None:
        import openvino as ov
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
        self._tokenizer.enable_truncation(LONGEST_TOKENS)
        self._tokenizer.enable_padding()
        core = ov.Core()
        auto = "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
        properties = {
            "INFERENCE_NUM_THREADS": threads or len(os.sched_getaffinity(0)),
            "INFERENCE_PRECISION_HINT": auto if precision == "auto" else precision,
        }
        self._model: Any = core.compile_model(str(weights / "openvino_model.xml"), "CPU", properties)

    def encode(self, texts: Sequence[str]) -> Vectors:
        rows = self._tokenizer.encode_batch([text[:LONGEST_CHARACTERS] for text in texts])
        ids = np.array([row.ids for row in rows], dtype=np.int64)
        mask = np.array([row.attention_mask for row in rows], dtype=np.int64)
        vectors: Vectors = self._model({"input_ids": ids, "attention_mask": mask})[0]
        return vectors


class TorchEngine:
    """Any sentence-transformers folder, float32."""

    def __init__(self, weights: Path, threads: int, precision: str) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        if precision not in ("auto", "f32"):
            raise ValueError(f"config.pbtxt: precision is {precision!r}, the torch engine computes in f32: choose auto")
        if threads:
            torch.set_num_threads(threads)
        self._model: Any = SentenceTransformer(str(weights))

    def encode(self, texts: Sequence[str]) -> Vectors:
        cut = [text[:LONGEST_CHARACTERS] for text in texts]
        vectors: Vectors = self._model.encode(cut, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
        return vectors


def make_engine(parameters: dict[str, str], folder: Path) -> Engine:
    """The engine that the `parameters` of config.pbtxt ask for; `weights` is relative to the version folder."""
    chosen, weights = parameters["engine"], folder / parameters["weights"]
    threads, precision = int(parameters["threads"]), parameters["precision"]
    if chosen == "openvino":
        return OpenVinoEngine(weights, threads, precision)
    if chosen == "torch":
        return TorchEngine(weights, threads, precision)
    raise ValueError(f"config.pbtxt: engine is {chosen!r}, choose openvino or torch")
