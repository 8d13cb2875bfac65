from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from offline.training.bases import load_base, save_model
from offline.training.pruning import block_influence, blocks_of, kept_blocks, prune_blocks
from schemas.errors import UsageError

PROMPTS = [
    "News read: storm coast\nNews searches:",
    "News read: chess title; chess opening and a longer text\nNews searches:",
]


def test_influence_is_one_minus_the_mean_cosine_over_real_tokens(base: str) -> None:
    """Against transformers' own hidden states, prompt by prompt, so without padding."""
    loaded = load_base(base)
    sums, tokens = torch.zeros(3, dtype=torch.float64), 0
    for prompt in PROMPTS:
        states = loaded.model(**loaded.tokenizer(prompt, return_tensors="pt"), output_hidden_states=True).hidden_states
        for block in range(3):  # the last hidden state is normed, so the last block is not among them
            cosine = torch.nn.functional.cosine_similarity(states[block], states[block + 1], dim=-1)
            sums[block] += (1 - cosine).sum().double()
        tokens += states[0].shape[1]
    found = block_influence(loaded.model, loaded.tokenizer, PROMPTS)
    assert found[:3] == pytest.approx([float(value) for value in (sums / tokens).detach()], rel=1e-4)


def test_a_block_that_passes_its_input_on_has_no_influence_and_goes_first(base: str) -> None:
    loaded = load_base(base)
    for name in ("self_attn.o_proj.weight", "mlp.down_proj.weight"):
        loaded.model.model.layers[1].get_parameter(name).data.zero_()
    influence = block_influence(loaded.model, loaded.tokenizer, PROMPTS)
    assert influence[1] == pytest.approx(0.0, abs=1e-5)
    kept = kept_blocks(influence, 3)
    assert kept == [0, 2, 3]
    before = loaded.model(**loaded.tokenizer(PROMPTS[0], return_tensors="pt")).logits
    pruned = prune_blocks(loaded.model, kept)
    assert pruned.config.num_hidden_layers == 3
    torch.testing.assert_close(pruned(**loaded.tokenizer(PROMPTS[0], return_tensors="pt")).logits, before)


def test_a_pruned_model_writes_with_its_cache_what_it_writes_without(base: str) -> None:
    loaded = load_base(base)
    pruned, inputs = prune_blocks(loaded.model, [0, 3]), loaded.tokenizer(PROMPTS[0], return_tensors="pt")
    written = [pruned.generate(**inputs, max_new_tokens=8, do_sample=False, use_cache=cache) for cache in (True, False)]
    assert written[0].tolist() == written[1].tolist()


def test_a_model_knows_its_blocks_of_the_first_one_however_often_it_was_pruned_and_saved(
    base: str, tmp_path: Path
) -> None:
    loaded = load_base(base)
    assert blocks_of(loaded.model.config) == ()
    save_model(loaded._replace(model=prune_blocks(loaded.model, [0, 2, 3])), tmp_path)
    again = load_base(str(tmp_path))
    assert blocks_of(again.model.config) == (0, 2, 3)
    assert blocks_of(prune_blocks(again.model, [0, 2]).config) == (0, 3)


@given(st.lists(st.floats(0, 2), min_size=1, max_size=30), st.data())
def test_the_kept_blocks_are_in_order_and_none_left_out_has_more_influence(
    values: list[float], data: st.DataObject
) -> None:
    keep = data.draw(st.integers(1, len(values)))
    kept = kept_blocks(values, keep)
    assert kept == sorted(kept)
    assert len(set(kept)) == keep
    assert min(values[block] for block in kept) >= max((v for b, v in enumerate(values) if b not in kept), default=0)


@pytest.mark.parametrize("keep", [0, 5])
def test_a_wrong_number_of_blocks_is_refused(keep: int) -> None:
    with pytest.raises(UsageError, match="keep between 1 and 4"):
        kept_blocks([0.1, 0.2, 0.3, 0.4], keep)


def test_influence_needs_prompts(base: str) -> None:
    loaded = load_base(base)
    with pytest.raises(UsageError, match="there is none"):
        block_influence(loaded.model, loaded.tokenizer, [])
