"""Plain text of what publishers write as HTML, and languages."""

from collections.abc import Sequence
from html.parser import HTMLParser

MARKUP_CHARACTERS = 200_000  # what is behind them of one field is not read
_SILENT = {"script", "style", "noscript", "template", "iframe", "svg"}
_INLINE = {
    "a",
    "abbr",
    "b",
    "bdi",
    "cite",
    "code",
    "em",
    "font",
    "i",
    "mark",
    "s",
    "small",
    "span",
    "strong",
    "sub",
    "u",
}


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._silent = ""

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        if tag in _SILENT and not self._silent:
            self._silent = tag
        self._break(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == self._silent:
            self._silent = ""
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data)

    def _break(self, tag: str) -> None:
        if tag not in _INLINE:
            self.parts.append(" ")


def plain_text(markup: str, most_characters: int) -> str:
    """Without tags, entities, control characters and runs of blanks; cut at a word with `…` when it is longer."""
    text = markup[:MARKUP_CHARACTERS]
    if "<" in text or "&" in text:
        reader = _Text()
        reader.feed(text)
        reader.close()
        text = "".join(reader.parts)
    printable = "".join(character if character.isprintable() else " " for character in text)
    return _cut(" ".join(printable.split()), most_characters)


def wanted_language(language: str, languages: Sequence[str]) -> bool:
    """Whether an article of this language (`en`, `en-US`, `en_GB`) is wanted. An unknown one is."""
    primary = language.replace("_", "-").partition("-")[0].strip().lower()
    return primary in ("", "und", "mul") or primary in {wanted.partition("-")[0].lower() for wanted in languages}


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    head = text[: most - 1]
    return f"{head.rpartition(' ')[0] or head}…"
