"""The engines by which an evaluation writes lists: transformers, with the weights as they were trained, and OpenVINO,
with int8 weights as they are served on a CPU (ten times as quick there; what is measured is then what readers get)."""

import hashlib
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, Literal, get_args

import msgspec

from offline.release.manifest import sha256_of
from schemas.errors import UsageError
from schemas.prompt import PromptVersion

Engine = Literal["transformers", "openvino"]
PromptWriter = Callable[[Sequence[str], int, int], list[tuple[str, ...]]]  # prompts, count, seed (0: greedy)
LARGEST_N: Final = 32
ROWS: Final = 64  # sequences that transformers writes at once: 0.7 GB of keys and values of SmolLM2-135M on a CPU
_RECIPE: Final = 2  # raise it when the same weights would write other lists


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A model of transformers, the prompt that it reads, and how it writes."""

    folder: str  # or a hub's name
    prompt: PromptVersion
    engine: Engine = "transformers"
    device: str = "cpu"  # of transformers
    precision: str = "auto"  # of OpenVINO
    temperature: float = 1.0
    max_new_tokens: int = 80


def known_engine(name: str) -> Engine:
    for engine in get_args(Engine):
        if name == engine:
            known: Engine = engine
            return known
    raise UsageError(f"--engine is {' or '.join(get_args(Engine))}, not {name}")


def lists_key(checkpoint: Checkpoint) -> str:
    """Equal where the same prompt gives the same list: weights by their content, engine and settings."""
    files = sorted(path for path in Path(checkpoint.folder).glob("*") if path.suffix == ".safetensors")
    weights = [sha256_of(path) for path in files] or [checkpoint.folder]
    adapter = Path(checkpoint.folder) / "adapter_config.json"  # names its base
    made_of = [weights, adapter.read_text() if adapter.exists() else "", _RECIPE]
    how = msgspec.structs.replace(checkpoint, folder="", device="")
    return hashlib.sha256(msgspec.json.encode([made_of, how])).hexdigest()[:32]


def prompt_writer(checkpoint: Checkpoint) -> AbstractContextManager[PromptWriter]:
    """Loads the model; it goes with the context."""
    return _of_transformers(checkpoint) if checkpoint.engine == "transformers" else _of_openvino(checkpoint)


@contextmanager
def _of_transformers(checkpoint: Checkpoint) -> Iterator[PromptWriter]:
    from offline.training.bases import load_base
    from offline.training.greedy import ListWriter

    base = load_base(checkpoint.folder)
    base.model.to(checkpoint.device)

    def write(prompts: Sequence[str], count: int, seed: int) -> list[tuple[str, ...]]:
        length, batch = checkpoint.max_new_tokens, max(1, ROWS // count)
        writer = ListWriter(base.model, base.tokenizer, max_new_tokens=length, batch=batch)
        if not seed:
            return [(text,) for text in writer.write(prompts)]
        found: list[tuple[str, ...]] = []
        for start in range(0, len(prompts), batch):  # chance of its own for each batch
            part = prompts[start : start + batch]
            rows = writer.sample(part, count, temperature=checkpoint.temperature, seed=_seed_of(seed, part[0]))
            found += map(tuple, rows)
        return found

    yield write


@contextmanager
def _of_openvino(checkpoint: Checkpoint) -> Iterator[PromptWriter]:
    from offline.release.served_code import ServedStudent
    from offline.release.student import convert
    from offline.training.bases import load_base, save_model

    with tempfile.TemporaryDirectory(prefix="keenstream-engine-") as scratch:
        merged, served = Path(scratch) / "merged", Path(scratch) / "served"
        save_model(load_base(checkpoint.folder), merged)
        names = {"name": "evaluated", "version": "1", "source": ""}
        convert(merged, served, **names, prompt_version=checkpoint.prompt, progress=lambda step: None)
        student = ServedStudent(
            served,
            precision=checkpoint.precision,
            max_new_tokens=checkpoint.max_new_tokens,
            temperature=checkpoint.temperature,
            top_p=1.0,
            max_samples=LARGEST_N,
        )

        def write(prompts: Sequence[str], count: int, seed: int) -> list[tuple[str, ...]]:
            if not seed:
                return [(text,) for text in student.write(prompts)]
            return student.sample(prompts, count, seed=seed)

        yield write


def _seed_of(seed: int, prompt: str) -> int:
    return zlib.crc32(f"{seed} {prompt}".encode()) | 1
