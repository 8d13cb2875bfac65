"""The cleaner as one OpenVINO graph: a sequence classifier of transformers, ending in the probability of `drop`."""

import warnings
from pathlib import Path
from typing import Any

import openvino as ov

GRAPH = "openvino_model.xml"
TOKENIZER = "tokenizer.json"


def convert_classifier(model: Any, tokenizer: Any, folder: Path, *, longest_tokens: int, drop: int) -> None:
    """Write the graph, and a tokenizer that cuts and pads by itself, into `folder`. `drop` is the class of noise."""
    import torch

    pad = tokenizer.pad_token_id
    example = {
        "input_ids": torch.tensor([[5] * 7, [5] * 5 + [pad] * 2]),  # with padding: RoBERTa counts positions without it
        "attention_mask": torch.tensor([[1] * 7, [1] * 5 + [0] * 2]),
    }
    with warnings.catch_warnings():
        # traced constants of its mask; that the graph judges as the model does, at any length, is tested
        warnings.filterwarnings("ignore", module="transformers")
        graph = ov.convert_model(_judged(model, drop), example_input=example)
    graph.outputs[0].get_tensor().set_names({"noise"})
    ov.save_model(graph, folder / GRAPH, compress_to_fp16=False)
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(longest_tokens)
    backend.enable_padding(pad_id=pad, pad_token=tokenizer.pad_token)
    backend.save(str(folder / TOKENIZER))


def _judged(model: Any, drop: int) -> Any:
    import torch

    class Judged(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            model.set_attn_implementation("eager")  # the fused kinds are not traced
            self.classifier = model.eval()

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            logits = self.classifier(input_ids=input_ids, attention_mask=attention_mask).logits
            found: torch.Tensor = logits.softmax(dim=1)[:, drop]
            return found

    return Judged()
