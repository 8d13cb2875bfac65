"""Lists that models write for held-out readers: the greedy one, and sampled ones of which best-of-N takes one.

A policy is a checkpoint in this process, a served model, or a file of completions that another program wrote.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

import msgspec

from offline.evaluate.held_out import HeldOutReader
from offline.evaluate.kept_lists import KeptLists
from offline.evaluate.prompt_writers import LARGEST_N, Checkpoint, PromptWriter, lists_key, prompt_writer
from schemas.clients.models import Completion, Student
from schemas.clients.prompt_probe import prompt_of_served
from schemas.errors import UsageError
from schemas.prompt import PromptVersion, render_prompt

Completions = dict[str, tuple[str, ...]]  # by reader: the greedy list first, then sampled ones
Step = Callable[[str], None]
SERVED_AT_ONCE = 16  # samples in one question to a served model
WRITTEN_AT_ONCE = 192  # lists, which are then kept


class Write(Protocol):
    """Lists of these readers: `samples` for each, of which the first is greedy, the others by `seed`.

    What was written elsewhere may have fewer, more, or none.
    """

    def __call__(self, readers: Sequence[HeldOutReader], samples: int, seed: int, /) -> Completions: ...


OpenPolicy = Callable[[Step], AbstractContextManager[Write]]  # what it is told says how far the lists are


class WrittenLists(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a file of completions."""

    user_id: str
    completions: tuple[str, ...]


def always(write: Write) -> OpenPolicy:
    """A policy that needs no opening."""
    return lambda step: nullcontext(write)


def of_file(path: Path) -> OpenPolicy:
    """What was written elsewhere, whatever the seed. UsageError for a file that is none."""
    decoder = msgspec.json.Decoder(WrittenLists)
    try:
        rows = [decoder.decode(line) for line in path.read_bytes().splitlines()]
    except OSError as error:
        raise UsageError(f"cannot read the lists {path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise UsageError(f"{path}: {error}; write one object with user_id and completions in a line") from error
    completions = {row.user_id: row.completions for row in rows}
    return always(lambda readers, samples, seed: completions)


def of_checkpoint(checkpoint: Checkpoint, keep: Path | None = None) -> OpenPolicy:
    """By a model of transformers in this process, which is loaded at the first list that `keep` does not hold."""

    @contextmanager
    def opened(step: Step) -> Iterator[Write]:
        kept = KeptLists(keep / f"{lists_key(checkpoint)}.jsonl" if keep else None)
        with ExitStack() as parts:
            yield _CheckpointLists(checkpoint, kept, parts, step)

    return opened


class _CheckpointLists:
    """An open checkpoint."""

    def __init__(self, checkpoint: Checkpoint, kept: KeptLists, parts: ExitStack, step: Step) -> None:
        self._checkpoint, self._kept, self._parts, self._step = checkpoint, kept, parts, step
        self._loaded: PromptWriter | None = None

    def __call__(self, readers: Sequence[HeldOutReader], samples: int, seed: int, /) -> Completions:
        prompts = {reader.user_id: render_prompt(reader.profile, self._checkpoint.prompt) for reader in readers}
        self._write(prompts.values(), 1, 0)
        if samples == 1:
            return {user: self._kept.of(prompt, 1, 0) for user, prompt in prompts.items()}
        more = samples - 1
        self._write(prompts.values(), more, seed)
        return {user: self._kept.of(text, 1, 0) + self._kept.of(text, more, seed) for user, text in prompts.items()}

    def _write(self, prompts: Iterable[str], count: int, seed: int) -> None:
        missing = sorted(self._kept.missing(prompts, count, seed), key=len)  # of like length: little is padding
        size = max(1, WRITTEN_AT_ONCE // count)
        for start in range(0, len(missing), size):
            self._step(f"{start * count:,} of {len(missing) * count:,}")
            part = missing[start : start + size]
            self._loaded = self._loaded or self._parts.enter_context(prompt_writer(self._checkpoint))
            self._kept.add(part, seed, self._loaded(part, count, seed))


async def of_served(
    student: Student,
    wanted: PromptVersion | None,
    readers: Sequence[HeldOutReader],
    samples: int,
    seed: int,
) -> Completions:
    """By a served model, with the prompt that it says it reads; raises the model's own error.

    UsageError when `wanted` is named and its weights were made for another.
    """
    prompt = wanted or await prompt_of_served(student)
    prompts = [render_prompt(reader.profile, prompt) for reader in readers]
    rows: list[tuple[str, ...]] = [() for _ in readers]
    for first in (0, *range(1, samples, SERVED_AT_ONCE)):
        count = 1 if first == 0 else min(SERVED_AT_ONCE, samples - first)
        answers = await student.write(prompts, samples=count, seed=seed * LARGEST_N + first if first else 0)
        for place, answer in enumerate(answers):
            if not isinstance(answer, Completion):
                raise answer
            if answer.prompt_version != prompt:
                raise UsageError(
                    f"{answer.model_version} was made for the prompt {answer.prompt_version}, not {prompt}: name it so"
                )
            rows[place] += answer.texts
    return {reader.user_id: row for reader, row in zip(readers, rows, strict=True)}


def ask_served(open_student: Callable[[], Student], prompt: PromptVersion | None) -> OpenPolicy:
    """By the model behind a client, which is opened and closed for each question."""

    async def ask(readers: Sequence[HeldOutReader], samples: int, seed: int) -> Completions:
        student = open_student()
        try:
            return await of_served(student, prompt, readers, samples, seed)
        finally:
            await student.close()

    return always(lambda readers, samples, seed: asyncio.run(ask(readers, samples, seed)))
