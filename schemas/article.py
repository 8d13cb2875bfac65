"""A news article as the recommender knows it."""

import re
from typing import Annotated

import msgspec

from schemas.event import Identifier, Milliseconds

MAX_EMBEDDED_CHARACTERS = 512  # about the 128 tokens that the embedder was trained with


class Article(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One article; times are UTC milliseconds; `expires_at` is filled from the settings when absent."""

    article_id: Identifier
    title: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
    url: Annotated[str, msgspec.Meta(max_length=2_048)]
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    published_at: Milliseconds
    summary: Annotated[str, msgspec.Meta(max_length=8_000)] = ""
    category: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    expires_at: Milliseconds | None = None


def embedded_text(article: Article) -> str:
    """The text whose embedding stands for the article: title, then summary as far as the embedder reads."""
    return f"{article.title}. {article.summary}".strip()[:MAX_EMBEDDED_CHARACTERS]


_NOT_WORD = re.compile(r"\W+")


def title_key(title: str) -> str:
    """The same for titles that differ only in case, punctuation and spacing (a re-published story)."""
    return _NOT_WORD.sub(" ", title.casefold()).strip()
