"""trl's supervised trainer, and the only file that knows its interface (trl 1.16)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from offline.training.bases import Base
from offline.training.sizes import WarmStart
from offline.training.trainer_arguments import shared_arguments


def sft_trainer(
    base: Base, prompts: Sequence[str], completions: Sequence[str], settings: WarmStart, staging: Path, device: str
) -> Any:
    """A trainer of completions given prompts; the loss is over the completion's tokens and its end token only."""
    import torch
    from datasets import Dataset
    from torch.nn.functional import cross_entropy
    from trl import SFTConfig, SFTTrainer

    class CompletionTrainer(SFTTrainer):  # type: ignore[misc]  # trl is untyped
        """Projects to the vocabulary only where a label is. trl 1.16 does so on GPUs; on a CPU it projects the prompt
        too, which took 2 of the 5 seconds of a step of `laptop`."""

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            if return_outputs or device != "cpu":
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            labels = inputs["labels"][:, 1:]
            kept, plain = labels != -100, self.accelerator.unwrap_model(model)
            tokens = {name: inputs[name] for name in ("input_ids", "attention_mask")}
            with torch.autocast("cpu", torch.bfloat16, enabled=self.args.bf16):
                hidden = plain.base_model(**tokens, use_cache=False).last_hidden_state[:, :-1]
                logits = plain.get_output_embeddings()(hidden[kept]).float()
            return cross_entropy(logits, labels[kept], reduction="sum") / (num_items_in_batch or kept.sum())

    arguments = SFTConfig(
        **shared_arguments(settings, staging, device),
        per_device_train_batch_size=settings.batch,
        completion_only_loss=True,
        eos_token=base.tokenizer.eos_token,  # appended to each completion: where a list ends must be learnt too
        packing=False,
        max_length=None,  # the prompt's own limits bound it; cutting would take the list away
        warmup_steps=max(1, settings.steps // 20),
        dataset_num_proc=None,
        train_sampling_strategy="group_by_length",  # a batch of unlike prompts is a third padding
    )
    rows = Dataset.from_dict({"prompt": list(prompts), "completion": list(completions)})
    return CompletionTrainer(base.model, args=arguments, train_dataset=rows, processing_class=base.tokenizer)
