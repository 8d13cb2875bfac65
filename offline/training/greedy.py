"""What a model in memory writes for prompts: one line each, greedy or sampled. What is released must equal it."""

from collections.abc import Sequence
from typing import Any

from schemas.prompt import STOP


class ListWriter:
    """Writes in batches with `generate` of transformers; a list ends at the end token or at a line's end."""

    def __init__(self, model: Any, tokenizer: Any, *, max_new_tokens: int, batch: int = 32) -> None:
        self._model, self._tokenizer, self._batch = model, tokenizer, batch
        self._length = max_new_tokens
        self._ends = [tokenizer.eos_token_id, *tokenizer.encode(STOP, add_special_tokens=False)]

    def write(self, prompts: Sequence[str]) -> list[str]:
        """The most likely list of each prompt."""
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
        pad = self._tokenizer.pad_token_id
        ids = self._model.generate(
            **inputs, max_new_tokens=self._length, eos_token_id=self._ends, pad_token_id=pad, use_cache=True, **how
        )
        texts = self._tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        lines = [text.partition(STOP)[0] for text in texts]
        count = how.get("num_return_sequences", 1)
        return [lines[at : at + count] for at in range(0, len(lines), count)]
