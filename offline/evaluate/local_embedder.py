"""The served embedder's weights in this process, for jobs that embed much and have no Triton.

The same graph, tokenizer and limits as `triton_models/embedder`, from the folder that `make setup` builds
(`.keenstream/models/embedder`). Pickled, it is the path of that folder: each process loads its own.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline.release.manifest import read_manifest
from schemas.errors import UsageError
from schemas.names import EMBEDDING_DIMENSIONS

LONGEST_TOKENS = 256  # as served
LONGEST_CHARACTERS = 8_000
BATCH_TEXTS = 64


class LocalEmbedder:
    """An `Embedder` (schemas/clients/models.py) on OpenVINO; the model is loaded at the first text."""

    def __init__(self, folder: Path, threads: int = 0) -> None:
        manifest = read_manifest(folder)
        if manifest is None:
            raise UsageError(f"{folder} holds no embedder: run `make setup`, or name the folder of one")
        self._folder, self._threads = folder, threads
        self._version = f"{manifest.name}-{manifest.version}"
        self._loaded: tuple[Any, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """FP32 [n, 384], unit length, in order. Texts of like length share a batch, so that little is padding."""
        vectors = np.empty((len(texts), EMBEDDING_DIMENSIONS), np.float32)
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(order), BATCH_TEXTS):
            places = order[start : start + BATCH_TEXTS]
            vectors[places] = self._encode([texts[place][:LONGEST_CHARACTERS] for place in places])
        return vectors

    async def version(self) -> str:
        return self._version

    async def close(self) -> None:
        self._loaded = None

    def _encode(self, texts: list[str]) -> NDArray[np.float32]:
        if self._loaded is None:
            self._loaded = self._load()
        tokenizer, model = self._loaded
        rows = tokenizer.encode_batch(texts)
        ids = np.array([row.ids for row in rows], dtype=np.int64)
        mask = np.array([row.attention_mask for row in rows], dtype=np.int64)
        vectors: NDArray[np.float32] = model({"input_ids": ids, "attention_mask": mask})[0]
        return vectors

    def _load(self) -> tuple[Any, Any]:
        import openvino as ov
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        tokenizer.enable_truncation(LONGEST_TOKENS)
        tokenizer.enable_padding()
        core = ov.Core()
        has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        properties = {
            "INFERENCE_NUM_THREADS": self._threads or len(os.sched_getaffinity(0)),
            "INFERENCE_PRECISION_HINT": "bf16" if has_bf16 else "f32",
        }
        return tokenizer, core.compile_model(str(self._folder / "openvino_model.xml"), "CPU", properties)
