"""What a model in memory writes for prompts: one line each, greedy or sampled. What is released must equal it."""

import re
from collections.abc import Sequence, Set
from itertools import pairwise
from typing import Any

from schemas.prompt import STOP

_SEPARATOR = re.compile(r"[;|]")


def taken(tokens: Sequence[int], separators: Set[int]) -> set[int]:
    """The tokens that may not come next in a greedy list: where a query begins, those that earlier ones begin with.

    The served model has the same rule (triton_models/student/1/lists.py, which can import nothing from here).
    """
    if not tokens or tokens[-1] not in separators:
        return set()
    begins = [tokens[0], *(token for before, token in pairwise(tokens) if before in separators)]
    return set(begins) - separators


class ListWriter:
    """Writes in batches with `generate` of transformers; a list ends at the end token or at a line's end."""

    def __init__(self, model: Any, tokenizer: Any, *, max_new_tokens: int, batch: int = 32) -> None:
        self._model, self._tokenizer, self._batch = model, tokenizer, batch
        self._length = max_new_tokens
        self._ends = [tokenizer.eos_token_id, *tokenizer.encode(STOP, add_special_tokens=False)]
        vocabulary = tokenizer.get_vocab().items()
        self._separators = {token for text, token in vocabulary if _SEPARATOR.search(text)} - {*self._ends}

    def write(self, prompts: Sequence[str]) -> list[str]:
        """The list of each prompt that greedy decoding writes when no two queries begin with the same token."""
        return [text for texts in self._write(prompts, do_sample=False) for text in texts]

    def sample(self, prompts: Sequence[str], count: int, *, temperature: float, seed: int) -> list[list[str]]:
        """`count` lists for each prompt; the same seed repeats them."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._write(prompts, do_sample=True, temperature=temperature, top_k=0, num_return_sequences=count)

    def _write(self, prompts: Sequence[str], **how: Any) -> list[list[str]]:
        import torch

        was_training = self._model.training
        self._model.eval()
        try:
            with torch.no_grad():
                starts = range(0, len(prompts), self._batch)
                return [row for at in starts for row in self._batch_of(prompts[at : at + self._batch], how)]
        finally:
            self._model.train(was_training)

    def _batch_of(self, prompts: Sequence[str], how: dict[str, Any]) -> list[list[str]]:
        inputs = self._tokenizer(list(prompts), return_tensors="pt", padding=True, padding_side="left")
        inputs = {name: inputs[name].to(self._model.device) for name in ("input_ids", "attention_mask")}
        width = inputs["input_ids"].shape[1]
        ids = self._model.generate(
            **inputs,
            max_new_tokens=self._length,
            eos_token_id=self._ends,
            pad_token_id=self._tokenizer.pad_token_id,
            use_cache=True,
            logits_processor=[] if how["do_sample"] else [self._distinct(width)],
            **how,
        )
        texts = self._tokenizer.batch_decode(ids[:, width:], skip_special_tokens=True)
        lines = [text.partition(STOP)[0] for text in texts]
        count = how.get("num_return_sequences", 1)
        return [lines[at : at + count] for at in range(0, len(lines), count)]

    def _distinct(self, width: int) -> Any:
        def without_taken(ids: Any, scores: Any) -> Any:
            for row, written in enumerate(ids[:, width:].tolist()):
                scores[row, sorted(taken(written, self._separators))] = float("-inf")
            return scores

        return without_taken
