"""The words of the built-in news world (`world.toml`) and of everyday pages and searches."""

import re
import tomllib
from functools import cache, cached_property
from importlib.resources import files

import msgspec

_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")
_POSSESSIVE = re.compile(r"['’]s?$")


class TopicWords(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One topic: who acts, what it is about, what can happen (each in several phrasings), and its readers' everyday."""

    id: str
    entities: tuple[str, ...]
    things: tuple[str, ...]
    facts: tuple[tuple[str, ...], ...]
    everyday: tuple[str, ...]


class CategoryWords(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`like`: parts of the names that other feeds give to such a category, lower case."""

    name: str
    like: tuple[str, ...]
    contexts: tuple[str, ...]
    topics: tuple[TopicWords, ...]


class Vocabulary(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """The whole file."""

    stop_words: str
    places: tuple[str, ...]
    attributions: tuple[str, ...]
    days: tuple[str, ...]
    noise: tuple[str, ...]
    page_frames: tuple[str, ...]
    search_frames: tuple[str, ...]
    categories: tuple[CategoryWords, ...]

    @cached_property
    def stops(self) -> frozenset[str]:
        return frozenset(self.stop_words.split())

    @cached_property
    def phrase_words(self) -> dict[str, frozenset[str]]:
        """Every everyday phrase with its words."""
        phrases = (phrase for category in self.categories for topic in category.topics for phrase in topic.everyday)
        return {phrase: self.word_set(phrase) for phrase in phrases}

    def content_words(self, text: str) -> tuple[str, ...]:
        """Words that carry meaning, in order, as written; numbers and stop words out."""
        return tuple(word for word in _WORD.findall(text) if len(word) > 1 and word.lower() not in self.stops)

    def word_set(self, text: str) -> frozenset[str]:
        """Content words in lower case without plural s, for comparing vocabularies."""
        return frozenset(singular(word) for word in self.content_words(text)) - self.stops


def singular(word: str) -> str:
    """Lower case, without possessive and plural s: enough to tell whether two vocabularies meet."""
    lower = _POSSESSIVE.sub("", word.lower())
    return lower[:-1] if len(lower) > 3 and lower.endswith("s") and not lower.endswith("ss") else lower


@cache
def load_vocabulary() -> Vocabulary:
    """The packaged vocabulary."""
    text = files("offline.simulate").joinpath("world.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), Vocabulary)
