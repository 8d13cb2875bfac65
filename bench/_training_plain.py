"""trl's trainers as its documentation uses them, with a size's settings spelt out: what ours is measured beside."""

from collections.abc import Sequence
from typing import Any

from offline.training.sizes import Student, Teacher
from offline.training.trainer_arguments import computes_bf16


def length_reward(completions: Sequence[str], **_rest: Any) -> list[float]:
    """The cheapest that differs within a group: characters of each completion."""
    return [float(len(text)) for text in completions]


def plain_grpo(base: str, prompts: Sequence[str], settings: Teacher, folder: str, device: str) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    arguments = GRPOConfig(
        **_arguments(settings, folder, device),
        loss_type="dr_grpo",
        scale_rewards="none",
        beta=settings.kl_weight,
        per_device_train_batch_size=settings.completions,
        gradient_accumulation_steps=settings.groups,  # lists of all groups are written at once, learnt from one by one
        num_generations=settings.completions,
        max_completion_length=settings.max_new_tokens,
        temperature=settings.temperature,
    )
    return GRPOTrainer(
        base, reward_funcs=length_reward, args=arguments, train_dataset=Dataset.from_dict({"prompt": list(prompts)})
    )


def plain_distillation(
    student: str, teacher: str, prompts: Sequence[str], settings: Student, folder: str, device: str
) -> Any:
    from datasets import Dataset
    from trl import DistillationConfig, DistillationTrainer

    arguments = DistillationConfig(
        **_arguments(settings, folder, device),
        beta=1.0,
        per_device_train_batch_size=settings.batch,
        max_completion_length=settings.max_new_tokens,
        temperature=settings.temperature,
    )
    return DistillationTrainer(
        student, teacher_model=teacher, args=arguments, train_dataset=Dataset.from_dict({"prompt": list(prompts)})
    )


def _arguments(settings: Teacher | Student, folder: str, device: str) -> dict[str, Any]:
    """Written out and not ours (offline/training/trainer_arguments.py), which are part of what is measured."""
    return {
        "output_dir": folder,
        "max_steps": settings.steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "linear",
        "save_steps": settings.checkpoint_every,
        "logging_steps": 1,
        "report_to": "none",
        "seed": settings.seed,
        "data_seed": settings.seed,
        "use_cpu": device == "cpu",
        "bf16": settings.bf16 and computes_bf16(device),  # else plain TRL would seem many times slower than it is
        "gradient_checkpointing": False,
    }
