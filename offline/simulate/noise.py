"""What readers browse and type that is about none of their interests.

`listed`: the forty phrases of world.toml, the same for everybody. `wide`: thousands of texts from the templates of
noise.toml, other templates and other words for readers who are held out, so that a cleaner which has learnt the
training readers' noise by heart is seen through.
"""

import re
import tomllib
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from random import Random
from typing import Final, Literal

import msgspec

from offline.reader_groups import SplitName, split_of
from offline.simulate.vocabulary import Vocabulary

NoiseTexts = Literal["listed", "wide"]
WriteNoise = Callable[[str], str]  # user_id -> text

# Whose each entry of a list is, by its place: a quarter held out, an eighth for validation, the others for training.
_DEALT: Final[tuple[SplitName, ...]] = (
    "held_out", "training", "validation", "training", "held_out", "training", "training", "training",
)  # fmt: skip
_SLOT = re.compile(r"\{(\w+)\}")
_KEYS = "asdfghjklqwertyuiopzxcvbnm"


class NoiseWords(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    words: dict[str, tuple[str, ...]]
    kinds: dict[str, tuple[str, ...]]

    def part(self, split: SplitName) -> "NoiseWords":
        """What is dealt to the readers of `split`."""
        return NoiseWords(
            {name: dealt(words, split) for name, words in self.words.items()},
            {name: dealt(templates, split) for name, templates in self.kinds.items()},
        )


def dealt(entries: Sequence[str], split: SplitName) -> tuple[str, ...]:
    return tuple(entry for place, entry in enumerate(entries) if _DEALT[place % len(_DEALT)] == split)


@cache
def load_noise() -> NoiseWords:
    """The packaged lists."""
    text = files("offline.simulate").joinpath("noise.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), NoiseWords)


def noise_writer(texts: NoiseTexts, vocabulary: Vocabulary, rng: Random) -> WriteNoise:
    if texts == "wide":
        return WideNoise(load_noise(), rng).write
    return lambda user_id: vocabulary.noise[int(rng.random() * len(vocabulary.noise))]


class WideNoise:
    """A kind, one of its templates, words for its slots; each by equal chances."""

    def __init__(self, words: NoiseWords, rng: Random) -> None:
        self._rng = rng
        self._parts = {split: words.part(split) for split in dict.fromkeys(_DEALT)}

    def write(self, user_id: str) -> str:
        part = self._parts[split_of(user_id)]
        template = self._rng.choice(part.kinds[self._rng.choice(list(part.kinds))])
        return template.format_map({slot: self._fill(slot, part) for slot in slots_of(template)})

    def _fill(self, slot: str, part: NoiseWords) -> str:
        rng = self._rng
        match slot:
            case "n":
                return str(rng.randint(2, 59))
            case "number":
                return str(rng.randint(100, 10 ** rng.randint(4, 7)))
            case "hex":
                return f"{rng.getrandbits(64):0{rng.choice((8, 12, 16))}x}"
            case "mash":
                return "".join(rng.choices(_KEYS, k=rng.randint(4, 9)))
            case _:
                return rng.choice(part.words[slot])


def slots_of(template: str) -> list[str]:
    """Names of the slots, each once, in the order in which they stand."""
    return list(dict.fromkeys(_SLOT.findall(template)))
