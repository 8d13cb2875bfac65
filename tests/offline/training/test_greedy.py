"""What a model in memory writes when it finds the same query the likeliest at each place."""

from typing import Any

import pytest
import torch

from offline.training.bases import load_base
from offline.training.greedy import ListWriter, taken

WORDS = {" storm": 3.0, " tax": 2.0, " match": 1.0}


@pytest.fixture
def insistent(base: str) -> Any:
    """Prefers `storm` to `tax` to `match` where a query begins, and ends each after its first token."""
    loaded = load_base(base)
    likes = torch.full((len(loaded.tokenizer),), -30.0)
    for word, liked in WORDS.items():
        likes[loaded.tokenizer.encode(word, add_special_tokens=False)[0]] = liked
    (separator,) = loaded.tokenizer.encode(";", add_special_tokens=False)
    step = iter(range(100))

    def logits(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        wanted = likes.clone()
        wanted[separator] = 9.0 if next(step) % 2 else -30.0
        return wanted.expand_as(output[..., : len(wanted)]).clone()

    loaded.model.lm_head.register_forward_hook(logits)
    return loaded


def test_each_query_of_a_greedy_list_begins_with_a_token_of_its_own(insistent: Any) -> None:
    writer = ListWriter(insistent.model, insistent.tokenizer, max_new_tokens=6)
    (first, second) = writer.write(["one prompt", "another prompt of more words"])
    begins = [insistent.tokenizer.encode(word, add_special_tokens=False)[0] for word in WORDS]
    expected = ";".join(insistent.tokenizer.decode([token]) for token in begins) + ";"
    assert first == second == expected


def test_samples_may_repeat_themselves(insistent: Any) -> None:
    writer = ListWriter(insistent.model, insistent.tokenizer, max_new_tokens=6)
    ((text,),) = writer.sample(["one prompt"], 1, temperature=0.01, seed=1)
    assert len(set(text.strip(";").split(";"))) == 1


def test_within_a_query_nothing_is_taken() -> None:
    assert taken([5, 6, 0, 5], {0}) == set()
    assert taken([5, 6, 0], {0}) == {5}
