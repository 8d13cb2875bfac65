"""Lists that models write for held-out readers: `samples` texts each, of which best-of-N takes one by the rewards.

A policy is a checkpoint in this process, a served model, or a file of completions that another program wrote.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from offline.evaluate.answers import Answer, of_lists
from offline.evaluate.held_out import HeldOutReader
from offline.evaluate.served_prompt import prompt_of_served
from offline.training.proposals import signal_texts
from offline.training.rewards import Reward, best_of, composite, queries_of
from schemas.clients.models import Completion, Student
from schemas.errors import UsageError
from schemas.prompt import PromptVersion, render_prompt

Completions = dict[str, tuple[str, ...]]  # by reader: the greedy list first, then sampled ones
LARGEST_N = 32
SERVED_AT_ONCE = 16  # samples in one question to a served model


class WrittenLists(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a file of completions."""

    user_id: str
    completions: tuple[str, ...]


class Writing(msgspec.Struct, frozen=True, kw_only=True):
    """How lists are written."""

    samples: int = 1  # N: the first is greedy
    temperature: float = 1.0
    max_new_tokens: int = 48


def read_completions(path: Path) -> Completions:
    decoder = msgspec.json.Decoder(WrittenLists)
    try:
        rows = [decoder.decode(line) for line in path.read_bytes().splitlines()]
    except OSError as error:
        raise UsageError(f"cannot read the lists {path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise UsageError(f"{path}: {error}; write one object with user_id and completions in a line") from error
    return {row.user_id: row.completions for row in rows}


def of_file(completions: Completions, readers: Sequence[HeldOutReader], seed: int) -> Completions:
    """What was written elsewhere, whatever the seed."""
    return completions


def of_checkpoint(
    folder: str, prompt: PromptVersion, device: str, writing: Writing, readers: Sequence[HeldOutReader], seed: int
) -> Completions:
    """By a model of transformers, in this process."""
    from offline.training.bases import load_base
    from offline.training.greedy import ListWriter

    base = load_base(folder)
    base.model.to(device)
    writer = ListWriter(base.model, base.tokenizer, max_new_tokens=writing.max_new_tokens)
    prompts = [render_prompt(reader.profile, prompt) for reader in readers]
    rows: list[tuple[str, ...]] = [(text,) for text in writer.write(prompts)]
    if writing.samples > 1:
        more = writer.sample(prompts, writing.samples - 1, temperature=writing.temperature, seed=seed)
        rows = [(*first, *others) for first, others in zip(rows, more, strict=True)]
    return {reader.user_id: row for reader, row in zip(readers, rows, strict=True)}


async def of_served(
    student: Student, wanted: PromptVersion | None, writing: Writing, readers: Sequence[HeldOutReader], seed: int
) -> Completions:
    """By a served model, with the prompt that it says it reads; raises the model's own error.

    UsageError when `wanted` is named and its weights were made for another.
    """
    prompt = wanted or await prompt_of_served(student)
    prompts = [render_prompt(reader.profile, prompt) for reader in readers]
    rows: list[tuple[str, ...]] = [() for _ in readers]
    for first in (0, *range(1, writing.samples, SERVED_AT_ONCE)):
        count = 1 if first == 0 else min(SERVED_AT_ONCE, writing.samples - first)
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


def first_lists(completions: Completions) -> list[Answer]:
    """N = 1: what the greedy list asks for."""
    return of_lists({user: queries_of(texts[0]) if texts else () for user, texts in completions.items()})


def best_lists(
    completions: Completions, readers: Sequence[HeldOutReader], rewards: Mapping[str, Reward]
) -> dict[int, list[Answer]]:
    """For N = 1, 2, 4, ... up to the number of samples: the answers of the best of the first N, by the rewards' sum."""
    count = min(LARGEST_N, min(len(completions[reader.user_id]) for reader in readers))
    texts = [text for reader in readers for text in completions[reader.user_id][:count]]
    signals = [signal_texts(reader.profile) for reader in readers for _ in range(count)]
    # no column of clicks: nothing that comes later may choose
    chosen = best_of(composite(rewards, texts, signals=signals), count)
    found = {}
    for n in (2**power for power in range(count.bit_length())):
        rows = zip(readers, chosen[n - 1], strict=True)
        lists = {reader.user_id: queries_of(completions[reader.user_id][place]) for reader, place in rows}
        found[n] = of_lists(lists)
    return found


def ask_served(
    open_student: Callable[[], Student],
    prompt: PromptVersion | None,
    writing: Writing,
    readers: Sequence[HeldOutReader],
    seed: int,
) -> Completions:
    """By the model behind a client, which is opened and closed here."""

    async def ask() -> Completions:
        student = open_student()
        try:
            return await of_served(student, prompt, writing, readers, seed)
        finally:
            await student.close()

    return asyncio.run(ask())
