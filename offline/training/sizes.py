"""Three sizes of the same training: `tiny` for tests, `laptop` for two cores or one GPU, `cluster` for the paper's own.

The paper states none of the training settings (docs: "Not stated anywhere"); these are the project's. `laptop` trains
ten blocks of SmolLM2-135M and a student of five of them: in the time in which all thirty do 400 steps ten do 1,200. G
and the temperature of `cluster` follow the same team's later paper (2609.29983: G = 16, T = 1.0).
"""

from typing import Literal

import msgspec

from offline.evaluate.prompt_writers import Engine
from offline.training.gates import GateSettings
from offline.training.warm_start import ChoiceSettings
from schemas.errors import UsageError

SizeName = Literal["tiny", "laptop", "cluster"]


class WarmStart(msgspec.Struct, frozen=True, kw_only=True):
    """Supervised fine-tuning on chosen lists."""

    steps: int
    batch: int  # lists in a step
    learning_rate: float
    checkpoint_every: int
    choice: ChoiceSettings = ChoiceSettings()  # of the lists
    seed: int = 7
    max_new_tokens: int = 80  # five names, with room
    bf16: bool = False

    @property
    def readers(self) -> int:
        """As many as the steps see: more lists would be made for nothing."""
        return self.steps * self.batch


class Teacher(msgspec.Struct, frozen=True, kw_only=True):
    """Dr. GRPO."""

    steps: int
    groups: int  # readers in a step
    completions: int  # G: lists for each of them
    learning_rate: float
    checkpoint_every: int
    held_out_every: int
    temperature: float = 1.0
    max_new_tokens: int = 80  # five names, with room
    kl_weight: float = 0.0
    lora_rank: int = 0  # 0: all weights
    reward_weights: dict[str, float] = {}  # by name; 1 where none is named, 0 leaves it out
    gates: GateSettings = GateSettings()
    seed: int = 7
    bf16: bool = False

    @property
    def readers(self) -> int:
        """As many as the steps see."""
        return self.steps * self.groups


class Student(msgspec.Struct, frozen=True, kw_only=True):
    """On-policy distillation by reverse KL, after a short warm start on the teacher's lists."""

    steps: int
    batch: int
    learning_rate: float
    checkpoint_every: int
    held_out_every: int
    layers: int  # kept of the teacher's
    warm_start: WarmStart
    engine: Engine = "transformers"  # that writes the teacher's lists
    temperature: float = 1.0
    max_new_tokens: int = 80  # five names, with room
    gates: GateSettings = GateSettings()
    seed: int = 7
    bf16: bool = False


class Size(msgspec.Struct, frozen=True, kw_only=True):
    name: SizeName
    base: str  # tiny | smollm2 | the name or folder of a model
    layers: int = 0  # of that base that are kept; 0: all
    threads: int = 0  # of torch on a CPU; 0: one for each core
    warm_start: WarmStart
    teacher: Teacher
    student: Student


_OPEN = GateSettings(zero_variance_limit=1.0, clipped_limit=1.0, held_out_drop=1.0)  # random weights pass no gate

TINY = Size(
    name="tiny",
    base="tiny",
    threads=1,  # matrices this small are done before a second thread has begun
    warm_start=WarmStart(
        steps=120,
        batch=8,
        learning_rate=5e-3,
        checkpoint_every=40,
        max_new_tokens=24,
        choice=ChoiceSettings(samples=1),
    ),
    teacher=Teacher(
        steps=4,
        groups=2,
        completions=4,
        learning_rate=1e-4,
        checkpoint_every=2,
        held_out_every=2,
        max_new_tokens=24,
        gates=_OPEN,
    ),
    student=Student(
        steps=4,
        batch=4,
        learning_rate=1e-3,
        checkpoint_every=2,
        held_out_every=2,
        layers=2,
        warm_start=WarmStart(steps=40, batch=8, learning_rate=5e-3, checkpoint_every=20, max_new_tokens=24),
        max_new_tokens=24,
        gates=_OPEN,
    ),
)
LAPTOP = Size(  # what two cores without units for bfloat16 can train in two hours; batches of 8: 16 needed 20 GB
    name="laptop",
    base="smollm2",
    layers=10,
    warm_start=WarmStart(
        steps=1_200,
        batch=8,
        learning_rate=8e-4,  # few blocks bear more than the 5e-4 that all thirty do
        checkpoint_every=50,
        choice=ChoiceSettings(samples=0),  # untrained, the model writes no usable list from the bare prompt
        bf16=True,
    ),
    teacher=Teacher(
        steps=80, groups=1, completions=8, learning_rate=1e-5, checkpoint_every=5, held_out_every=40, bf16=True
    ),
    student=Student(
        steps=100,
        batch=8,
        learning_rate=1e-4,
        checkpoint_every=10,
        held_out_every=50,
        layers=5,
        warm_start=WarmStart(steps=300, batch=8, learning_rate=8e-4, checkpoint_every=50, bf16=True),
        engine="openvino",
        bf16=True,
    ),
)
CLUSTER = Size(
    name="cluster",
    base="Qwen/Qwen2.5-32B-Instruct",
    warm_start=WarmStart(steps=500, batch=64, learning_rate=1e-5, checkpoint_every=50, bf16=True),
    teacher=Teacher(
        steps=500,
        groups=16,
        completions=16,
        learning_rate=1e-6,
        checkpoint_every=25,
        held_out_every=25,
        lora_rank=64,
        bf16=True,
    ),
    student=Student(
        steps=1_000,
        batch=64,
        learning_rate=1e-5,
        checkpoint_every=50,
        held_out_every=50,
        layers=0,
        warm_start=WarmStart(steps=200, batch=64, learning_rate=2e-5, checkpoint_every=50, bf16=True),
        bf16=True,
    ),
)
_SIZES: dict[str, Size] = {size.name: size for size in (TINY, LAPTOP, CLUSTER)}


def size_of(name: str) -> Size:
    if name not in _SIZES:
        raise UsageError(f"there is no size {name!r}: choose one of {', '.join(_SIZES)}")
    return _SIZES[name]
