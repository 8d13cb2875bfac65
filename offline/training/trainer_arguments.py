"""Arguments that all three trainers of trl share: where it computes, when it saves, what it must not do."""

import contextlib
import ctypes
import functools
import os
from pathlib import Path
from typing import Any, Final, Protocol

from schemas.errors import UsageError

_MALLOC_OPTIONS: Final = (  # malloc.h: option, value
    (-8, 1),  # M_ARENA_MAX
    (-4, 0),  # M_MMAP_MAX
    (-1, 2**31 - 1),  # M_TRIM_THRESHOLD
)
_BF16_UNITS: Final = ("amx_bf16", "avx512_bf16", "bf16")  # x86-64 as torch names them; ARM, not tried


class Shared(Protocol):
    """What the settings of every stage have."""

    @property
    def steps(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def checkpoint_every(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def bf16(self) -> bool: ...


def shared_arguments(settings: Shared, staging: Path, device: str) -> dict[str, Any]:
    """Keyword arguments of transformers' TrainingArguments."""
    check_device(device)
    return {
        "output_dir": str(staging),
        "max_steps": settings.steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "linear",
        "save_strategy": "steps",
        "save_steps": settings.checkpoint_every,
        "save_total_limit": None,  # the run keeps its checkpoints itself
        "logging_steps": 1,
        "logging_first_step": True,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "use_cpu": device == "cpu",
        "bf16": settings.bf16 and computes_bf16(device),  # trl's own default is True, which a CPU pays for
        "gradient_checkpointing": False,
        "dataloader_pin_memory": device != "cpu",
    }


def quiet_libraries() -> None:
    """The run tells its progress itself; bars and advice of the libraries would only tear it apart."""
    import datasets
    from transformers.utils import logging

    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def limit_threads(count: int) -> None:
    """Of torch in this process; 0 leaves them as they are."""
    import torch

    if count:
        torch.set_num_threads(count)


def keep_freed_memory() -> bool:
    """Have glibc keep what this process frees, in one heap of huge pages; False where there is no glibc.

    On a CPU every step frees gigabytes and asks for them again. Mapped and cleared anew each time (glibc's way with
    large blocks), that was 18 of 73 CPU seconds of a run of `laptop` (from /proc, over 40 s); kept, 3 of 55 over 30 s,
    and the run held 11 GB at its end. With a heap for each thread the kept memory had grown to 20. Call it before torch
    allocates.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's switch for huge pages
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        return all(libc.mallopt(option, value) for option, value in _MALLOC_OPTIONS)
    return False


def plain_attention(model: Any, device: str) -> None:
    """On a CPU, attention by plain matrix products: torch's fused one takes 32 ms for the gradient of one layer of
    `laptop` (its profiler, batches of 8), these 10 for both ways."""
    if device == "cpu":
        model.set_attn_implementation("eager")


def cast_once(model: Any, device: str) -> None:
    """Have `model.generate` cast its weights to bfloat16 once. A trainer's autocast is around each forward pass and
    forgets at its end, so that every token pays: eight lists of `laptop` took 3.6 s, and 2.4 with one around them all.
    """
    import torch

    generate = model.generate

    @functools.wraps(generate)
    def casting_once(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, torch.bfloat16):
            return generate(*args, **kwargs)

    model.generate = casting_once


def computes_bf16(device: str) -> bool:
    """Whether bfloat16 is quicker than float32. A CPU without units for it converts every number: matrix products of
    `laptop` ran at 1.2 billion operations a second on AVX2, in float32 at 125."""
    import torch

    if device != "cpu":
        return bool(torch.cuda.is_bf16_supported())
    units = torch.cpu.get_capabilities()
    return any(units.get(name) for name in _BF16_UNITS)


def check_device(device: str) -> None:
    """UsageError when `device` is not there."""
    import torch

    if device not in ("cpu", "cuda"):
        raise UsageError(f"--device is cpu or cuda, not {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no GPU here (nvidia-smi shows the driver's view); use --device cpu")
