"""trl's GRPO trainer, set to Dr. GRPO, and the only file that knows its interface (trl 1.16).

Dr. GRPO (arXiv 2503.20783; the paper's choice) is GRPO without the division by the group's standard deviation
(`scale_rewards="none"`) and without the division by each completion's own length (`loss_type="dr_grpo"`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from offline.training.bases import Base
from offline.training.gates import ABSTAINED
from offline.training.rewards import Reward, Values, weighted
from offline.training.sizes import Teacher
from offline.training.trainer_arguments import shared_arguments

Columns = Mapping[str, Sequence[Any]]  # `prompt`, and what the rewards want to know of its reader


def grpo_trainer(
    base: Base, columns: Columns, rewards: Mapping[str, Reward], settings: Teacher, staging: Path, device: str
) -> Any:
    """A trainer of `base` on `columns`; a reward of weight 0 is left out."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    weights = weighted(rewards, settings.reward_weights)
    chosen = [name for name, weight in weights.items() if weight]
    arguments = GRPOConfig(
        **shared_arguments(settings, staging, device),
        loss_type="dr_grpo",
        scale_rewards="none",
        beta=settings.kl_weight,
        per_device_train_batch_size=settings.completions,
        gradient_accumulation_steps=settings.groups,  # lists of all groups are written at once, learnt from one by one
        num_generations=settings.completions,
        max_completion_length=settings.max_new_tokens,
        temperature=settings.temperature,
        reward_weights=[weights[name] for name in chosen],
        remove_unused_columns=False,
    )
    return GRPOTrainer(
        base.model,
        reward_funcs=[named_reward(name, rewards[name]) for name in chosen],
        args=arguments,
        train_dataset=Dataset.from_dict({name: list(values) for name, values in columns.items()}),
        processing_class=base.tokenizer,
        peft_config=_lora(settings.lora_rank),
    )


def named_reward(name: str, reward: Reward) -> Reward:
    """`reward` under the name that curves show, with the share of its abstentions as a measure of its own."""

    def scored(**batch: Any) -> Values:
        values = reward(**batch)
        if log := batch.get("log_metric"):
            log(f"{ABSTAINED}{name}", sum(value is None for value in values) / max(1, len(values)))
        return values

    scored.__name__ = name
    return scored


def _lora(rank: int) -> Any:
    if not rank:
        return None
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
