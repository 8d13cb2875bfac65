"""What training changed in a model, as a low-rank adapter (LoRA) of the model that it started from.

Full weights do not fit into a source repository; their difference from a base that everybody can fetch does. Each
matrix's difference is cut to its greatest singular values (Eckart-Young: the best approximation of that rank in the
Frobenius norm; for a LoRA run of that rank it is exact), norms are kept whole. Written in PEFT's own format, float16.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from offline.training.pruning import prune_blocks
from schemas.errors import UsageError

WEIGHTS = "adapter_model.safetensors"
CONFIGURATION = "adapter_config.json"
DEFAULT = "default"  # peft's name of an only adapter


class Fit(msgspec.Struct, frozen=True):
    """How much of the difference an adapter holds."""

    rank: int
    explained: float  # share of the squared Frobenius norm of all differences, in [0, 1]
    bits: int = 0  # of each number of a difference (difference.py); 0: an adapter


def write_adapter(trained: Any, base: Any, *, rank: int, base_name: str, folder: Path) -> Fit:
    """`trained` as an adapter of `base` in `folder`; both are models of transformers, `base` is changed in place.

    UsageError when their shapes differ, or when nothing was changed.
    """
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from safetensors.torch import save_file

    changed = differences(trained, base)
    kinds = {name.rpartition(".")[2]: difference.ndim for name, difference in changed.items()}
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=sorted(kind for kind, dimensions in kinds.items() if dimensions == 2),
        modules_to_save=sorted(kind for kind, dimensions in kinds.items() if dimensions == 1) or None,
        task_type="CAUSAL_LM",
    )
    with _tied_on_purpose():
        model = get_peft_model(base, config)
    lost = total = 0.0
    for name, difference in changed.items():
        total += float(difference.square().sum())
        lost += _set(model.base_model.model.get_submodule(name), difference, rank)
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file({name: value.half().contiguous() for name, value in state.items()}, folder / WEIGHTS)
    model.peft_config[DEFAULT].base_model_name_or_path = base_name  # not the folder of the machine that wrote it
    model.peft_config[DEFAULT].inference_mode = True
    model.peft_config[DEFAULT].save_pretrained(folder)
    return Fit(rank, 1 - lost / total)


def merge_adapter(base: Any, blocks: Sequence[int], folder: Path) -> Any:
    """`base`, cut to its `blocks` where any are named, with the adapter in `folder` merged; changed in place."""
    import torch
    from peft import PeftModel, get_peft_model_state_dict

    pruned = cut_to(base, blocks)
    try:
        with _tied_on_purpose():
            model = PeftModel.from_pretrained(pruned, folder, torch_dtype=torch.float32)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise UsageError(f"{folder} is no adapter of this base: {error}") from error
    # peft takes an adapter of more or fewer blocks without a word
    if strange := _names_in(folder / WEIGHTS) ^ set(get_peft_model_state_dict(model, save_embedding_layers=False)):
        raise UsageError(f"{folder} is no adapter of this base: {min(strange)} is in one of them only")
    with _tied_on_purpose():
        return model.merge_and_unload()


def _names_in(weights: Path) -> set[str]:
    from safetensors import safe_open

    with safe_open(weights, framework="pt") as file:
        return set(file.keys())


def cut_to(base: Any, blocks: Sequence[int]) -> Any:
    """`base` with these of its blocks; all of them where none is named."""
    return prune_blocks(base, blocks) if blocks else base


@contextmanager
def _tied_on_purpose() -> Iterator[None]:
    """Without PEFT's warnings that a table of tokens is shared: merged in place, it is changed for both of its uses."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings", category=UserWarning)
        yield


def differences(trained: Any, base: Any) -> dict[str, Any]:
    """By name of the module: what was added to its weight. Modules of a kind that nothing changed are left out."""
    found = {name: ours - theirs for name, ours, theirs in _pairs(trained, base)}
    kinds = {name.rpartition(".")[2] for name, difference in found.items() if difference.any()}
    if not kinds:
        raise UsageError("the trained weights are those of the base: there is nothing to ship")
    return {name: difference for name, difference in found.items() if name.rpartition(".")[2] in kinds}


def _pairs(trained: Any, base: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name of the module and both weights, each weight once however many modules share it."""
    ours, theirs = dict(trained.named_parameters()), dict(base.named_parameters())
    shapes = [(name, tuple(weight.shape)) for name, weight in ours.items()]
    if shapes != [(name, tuple(weight.shape)) for name, weight in theirs.items()]:
        raise UsageError(
            "the trained model has other layers than the base: ship a run that began with it; one that was pruned when "
            "runs did not yet note their kept_blocks in config.json has to be trained again"
        )
    for name, weight in ours.items():
        yield name.removesuffix(".weight"), weight.detach().float(), theirs[name].detach().float()


def _set(module: Any, difference: Any, rank: int) -> float:
    """Write `difference` into the adapter of `module`; the squared norm of what did not fit."""
    if difference.ndim == 1:
        module.modules_to_save[DEFAULT].weight.data += difference
        return 0.0
    up, down = low_rank(difference, rank)
    embedding = DEFAULT in module.lora_embedding_A
    first = module.lora_embedding_A[DEFAULT] if embedding else module.lora_A[DEFAULT].weight
    second = module.lora_embedding_B[DEFAULT] if embedding else module.lora_B[DEFAULT].weight
    first.data.zero_()
    second.data.zero_()
    first.data[: len(down)] = up.T if embedding else down
    second.data[:, : len(down)] = down.T if embedding else up
    return float((difference - up @ down).square().sum())


def low_rank(matrix: Any, rank: int) -> tuple[Any, Any]:
    """`up` [rows, rank] and `down` [rank, columns], whose product is the best of that rank.

    By the eigenvectors of the smaller Gram matrix: a hundred times quicker than a singular value decomposition of the
    table of tokens. Both factors get a share of each singular value, so that float16 holds both.
    """
    import torch

    if matrix.shape[0] > matrix.shape[1]:
        up, down = low_rank(matrix.T, rank)
        return down.T, up.T
    wide = matrix.double()
    vectors = torch.linalg.eigh(wide @ wide.T).eigenvectors[:, -rank:]  # the greatest come last
    down = vectors.T @ wide
    root = down.norm(dim=1).sqrt().clamp_min(torch.finfo(torch.float16).tiny)
    return (vectors * root).float(), (down / root[:, None]).float()
