"""One real inference for each served model: what Triton's own health endpoints cannot tell."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from keenstream.stack.triton import probe_models
from schemas.names import Model, Tensor

TIMEOUT_SECONDS = 30.0
# A full queue is the answer of a model that works.
_BUSY = ("Exceeds maximum queue size", "Request timeout expired")


def probe_text_model(grpc: str, model: str, tensor: str, output: str, text: str) -> None:
    request = InferInput(tensor, [1, 1], "BYTES")
    request.set_data_from_numpy(np.array([[text.encode()]], dtype=object))
    with InferenceServerClient(grpc) as client:
        try:
            client.infer(model, [request], outputs=[InferRequestedOutput(output)], client_timeout=TIMEOUT_SECONDS)
        except InferenceServerException as error:
            if not any(words in str(error) for words in _BUSY):
                raise


_PROBES: Mapping[str, Callable[[str], None]] = {
    Model.STUDENT: lambda grpc: probe_text_model(grpc, Model.STUDENT, Tensor.PROMPT, Tensor.COMPLETION, "Queries:"),
    Model.EMBEDDER: lambda grpc: probe_text_model(grpc, Model.EMBEDDER, Tensor.TEXT, Tensor.EMBEDDING, "ready"),
    Model.CLEANER: lambda grpc: probe_text_model(grpc, Model.CLEANER, Tensor.TEXT, Tensor.NOISE, "ready"),
}


def probe_triton(grpc: str, models: Sequence[str]) -> None:
    """Raises unless every model is loaded and those that we know answer."""
    probe_models(grpc, models)
    for model in models:
        if model in _PROBES:
            _PROBES[model](grpc)
