"""A shallower student out of a deep model: the blocks that change their input least are dropped.

Block influence (ShortGPT, arXiv 2403.03853, equation 1): BI of block i is 1 - E[cos(x_i, x_{i+1})], the mean over
tokens of one minus the cosine between what enters a block and what leaves it. Measured on the training prompts, not
guessed: which blocks matter depends on what they read.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from schemas.errors import UsageError

BATCH = 8  # prompts read at once
ORIGIN = "kept_blocks"  # in a pruned model's configuration: which blocks of the first model of the line it has


def block_influence(model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[float]:
    """One value in [0, 2] for each block, over all tokens of `prompts` that are not padding."""
    import torch

    if not prompts:
        raise UsageError("which blocks matter is measured on prompts: there is none")
    sums = torch.zeros(model.config.num_hidden_layers, dtype=torch.float64)
    tokens = 0
    model.eval()
    with torch.no_grad():
        for at in range(0, len(prompts), BATCH):
            inputs = tokenizer(list(prompts[at : at + BATCH]), return_tensors="pt", padding=True).to(model.device)
            between, real = _between_blocks(model, inputs), inputs["attention_mask"].bool()
            for block, (before, after) in enumerate(pairwise(between)):
                cosine = torch.nn.functional.cosine_similarity(before[real], after[real], dim=-1)
                sums[block] += (1 - cosine).sum().double().cpu()
            tokens += int(real.sum())
    return [float(value) for value in sums / tokens]


def _between_blocks(model: Any, inputs: Any) -> list[Any]:
    """What enters the first block, and what leaves each; transformers' own last hidden state is already normed."""
    seen: list[Any] = []
    blocks = model.model.layers
    hooks = [blocks[0].register_forward_pre_hook(lambda _block, arguments: seen.append(arguments[0]))]
    hooks += [
        block.register_forward_hook(lambda _block, _inputs, output: seen.append(_states(output))) for block in blocks
    ]
    try:
        model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _states(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def kept_blocks(influence: Sequence[float], keep: int) -> list[int]:
    """Places of the `keep` most influential blocks, in their order; of equal ones the earlier stays."""
    if not 0 < keep <= len(influence):
        raise UsageError(f"the model has {len(influence)} blocks: keep between 1 and {len(influence)}, not {keep}")
    ranked = sorted(range(len(influence)), key=lambda block: (-influence[block], block))
    return sorted(ranked[:keep])


def blocks_of(config: Any) -> tuple[int, ...]:
    """Of the model that was pruned first, in order; () for one that never was."""
    return tuple(getattr(config, ORIGIN, ()))


def prune_blocks(model: Any, kept: Sequence[int]) -> Any:
    """`model` with these blocks only; changed in place. Its configuration says which they were (`blocks_of`)."""
    import torch

    origin = blocks_of(model.config) or range(model.config.num_hidden_layers)
    setattr(model.config, ORIGIN, [origin[place] for place in kept])
    blocks = [model.model.layers[place] for place in kept]
    for place, block in enumerate(blocks):
        block.self_attn.layer_idx = place  # where its keys and values lie in the cache
    model.model.layers = torch.nn.ModuleList(blocks)
    model.config.num_hidden_layers = len(blocks)
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = [model.config.layer_types[place] for place in kept]
    return model
