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
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

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
    return SFTTrainer(base.model, args=arguments, train_dataset=rows, processing_class=base.tokenizer)
