"""What one list is: the task, where it ends, and the tokens that end it. Shared by all engines, so that they agree.

This file sees site-packages and its own folder only.
"""

import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

MAX_ITEMS = 8  # some more than are used, since the parser drops unusable ones
SEPARATOR = re.compile(r"[;|]")  # lists are asked for with `;`, small models also copy the `|` of their prompt


@dataclass(frozen=True)
class Settings:
    """The `parameters` of config.pbtxt."""

    weights: Path
    engine: str = "openvino"
    threads: int = 0
    precision: str = "auto"
    max_new_tokens: int = 80
    max_prompt_tokens: int = 1024
    max_samples: int = 16
    temperature: float = 0.8
    top_p: float = 0.95
    cache_gigabytes: int = 1

    @classmethod
    def read(cls, parameters: Mapping[str, str], folder: Path) -> "Settings":
        """Text to types; `weights` is relative to the model's version folder."""
        kinds: dict[str, Callable[[str], Any]] = {field.name: type(field.default) for field in fields(cls)}
        kinds["weights"] = folder.joinpath
        unknown = sorted(set(parameters) - set(kinds))
        if unknown:
            raise ValueError(f"config.pbtxt has unknown parameters: {', '.join(unknown)}; known are {', '.join(kinds)}")
        return cls(**{name: kinds[name](text) for name, text in parameters.items()})


@dataclass(frozen=True)
class Task:
    """One prompt; one sample without a seed is greedy, anything else is sampled with seed, seed + 1, ..."""

    prompt: str
    samples: int = 1
    seed: int = 0

    @property
    def sampled(self) -> bool:
        return self.samples > 1 or self.seed != 0


Answer = list[str] | ValueError  # a task that cannot be written has an error of its own


def cut_list(text: str, *, ended: bool) -> str:
    """The list up to a line end, a repeat or `MAX_ITEMS`; an item broken off by the token limit is dropped."""
    line, newline, _ = text.partition("\n")
    items = SEPARATOR.split(line)
    if not (ended or newline) and len(items) > 1:
        items.pop()
    kept: dict[str, str] = {}
    for item in items:
        if _key(item) in kept or len(kept) == MAX_ITEMS:
            break
        kept[_key(item)] = item.strip()
    return "; ".join(item for item in kept.values() if item)


def list_is_complete(text: str) -> bool:
    """True when further tokens cannot change what `cut_list` keeps."""
    keys = [_key(item) for item in SEPARATOR.split(text.partition("\n")[0])[:-1]]
    return "\n" in text or len(set(keys)) < len(keys) or len(keys) >= MAX_ITEMS


def taken(tokens: Sequence[int], separators: Set[int]) -> set[int]:
    """The tokens that may not come next: where an item begins, those that earlier items begin with.

    A small model puts the likeliest query again; this way each place of the list asks something else (what it is worth:
    offline/training/README.md). The trainer has the same rule (offline/training/greedy.py).
    """
    if not tokens or tokens[-1] not in separators:
        return set()
    begins = [tokens[0], *(token for before, token in pairwise(tokens) if before in separators)]
    return set(begins) - separators


def _key(item: str) -> str:
    return " ".join(item.casefold().split())


class Vocabulary:
    """The tokenizer of the weights, and which tokens end a list or an item."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tokenizer = Tokenizer.from_file(str(settings.weights / "tokenizer.json"))
        self.tokenizer.encode_special_tokens = True  # an end token typed by a reader is text, not an end token
        every = [[token] for token in range(self.tokenizer.get_vocab_size())]
        texts = self.tokenizer.decode_batch(every, skip_special_tokens=False)
        added = self.tokenizer.get_added_tokens_decoder()
        self.special = {number for number, token in added.items() if token.special}
        self.stops = self.special | {number for number, text in enumerate(texts) if "\n" in text}
        self.separators = {number for number, text in enumerate(texts) if SEPARATOR.search(text)}

    def encode(self, task: Task) -> list[int]:
        """The prompt's tokens; ValueError says what is wrong with the task."""
        longest, most = self.settings.max_prompt_tokens, self.settings.max_samples
        if not task.prompt.strip():
            raise ValueError("the prompt is empty: send the rendered text")
        if not 1 <= task.samples <= most:
            raise ValueError(f"samples is {task.samples}: ask for 1 to {most}")
        tokens: list[int] = self.tokenizer.encode(task.prompt).ids
        if len(tokens) > longest:
            raise ValueError(f"the prompt has {len(tokens)} tokens: shorten it to {longest}")
        return tokens

    def complete(self, tokens: Sequence[int]) -> bool:
        """Looks at the text only where a token could have closed an item."""
        last = tokens[-1]
        return last in self.stops or (last in self.separators and list_is_complete(self.tokenizer.decode(tokens)))

    def taken(self, tokens: Sequence[int]) -> set[int]:
        return taken(tokens, self.separators)

    def list_of(self, tokens: Sequence[int]) -> str:
        end = next((place for place, token in enumerate(tokens) if token in self.stops), None)
        return cut_list(self.tokenizer.decode(tokens[:end]), ended=end is not None)


def each_valid(vocabulary: Vocabulary, tasks: Sequence[Task]) -> tuple[list[Answer], dict[int, list[int]]]:
    """Answers with the errors filled in, and the tokens of the tasks (by place) that are left to write."""
    answers: list[Answer] = [[] for _ in tasks]
    tokens: dict[int, list[int]] = {}
    for place, task in enumerate(tasks):
        try:
            tokens[place] = vocabulary.encode(task)
        except ValueError as error:
            answers[place] = error
    return answers, tokens
