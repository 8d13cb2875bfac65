"""Texts of words that no label has: what a cleaner has never met is to be kept.

Labels cover few of the words that readers will use, and a classifier is free to call all others noise: trained without
these texts, one dropped 44 % of real headlines. They are words drawn by chance from the vocabulary of the embedder's
wheel (all-MiniLM-L6-v2's whole words), so they are nobody's text.
"""

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from random import Random

from offline.release.minilm_ir import find_minilm
from offline.training.labels import Label

SHORTEST_WORD = 3
LONGEST_TEXT = 12  # words
SMALL_WORDS = ("the", "of", "in", "for", "to", "and", "on", "with", "is", "how", "after", "at", "from", "his", "new")


@cache
def known_words(model: Path | None = None) -> tuple[str, ...]:
    """Whole words of letters, sorted; of the embedder's own vocabulary, or of another model with a `tokenizer.json`."""
    vocabulary = json.loads(((model or find_minilm()) / "tokenizer.json").read_bytes())["model"]["vocab"]
    return tuple(
        sorted(word for word in vocabulary if len(word) >= SHORTEST_WORD and word.isascii() and word.isalpha())
    )


def words_for(words: Sequence[str], *, validation: bool) -> list[str]:
    """A quarter of the words is for validation, and in no training text."""
    return [word for place, word in enumerate(words) if (place % 4 == 0) == validation]


def unfamiliar_texts(words: Sequence[str], count: int, *, seed: int) -> list[Label]:
    """`count` texts to be kept, short ones more often; every third in the case of titles, the others as typed."""
    rng = Random(seed)
    return [Label(_text(words, rng), "keep") for _ in range(count)]


def _text(words: Sequence[str], rng: Random) -> str:
    length = min(rng.randint(1, LONGEST_TEXT), rng.randint(1, LONGEST_TEXT))
    text = " ".join(_words(words, length, rng))
    return text.title() if rng.random() < 1 / 3 else text


def _words(words: Sequence[str], length: int, rng: Random) -> Iterator[str]:
    for _ in range(length):
        yield rng.choice(SMALL_WORDS) if length > 3 and rng.random() < 0.3 else rng.choice(words)
