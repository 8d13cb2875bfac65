"""trl's on-policy distillation trainer, and the only file that knows its interface (trl 1.16).

The student samples its own lists; on each of their tokens the teacher's whole distribution is the target, and the loss
is the reverse Kullback-Leibler divergence KL(student || teacher) (`beta=1.0`; the paper, section "distillation").
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from offline.training.bases import Base
from offline.training.sizes import Student
from offline.training.trainer_arguments import shared_arguments


def distillation_trainer(
    student: Base, teacher: Base, prompts: Sequence[str], settings: Student, staging: Path, device: str
) -> Any:
    """A trainer of `student` towards `teacher`, which stays as it is; both must share the vocabulary."""
    from datasets import Dataset
    from trl import DistillationConfig, DistillationTrainer

    arguments = DistillationConfig(
        **shared_arguments(settings, staging, device),
        beta=1.0,
        per_device_train_batch_size=settings.batch,
        max_completion_length=settings.max_new_tokens,
        temperature=settings.temperature,
    )
    return DistillationTrainer(
        student.model,
        teacher_model=teacher.model,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": list(prompts)}),
        processing_class=student.tokenizer,
    )
