"""Query requests, query lists, and the one parser that turns a model's text into queries."""

import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from schemas.profile import UserProfile, latest_signals

MAX_QUERIES = 5
MAX_QUERY_CHARACTERS = 80
MAX_QUERY_WORDS = 12
CLICK_SHARE = 2 / 3  # of the signals kept as queries: clicks speak the language of news (README, Quality)
NEAR_COPY_OVERLAP = 0.75  # Jaccard overlap of words from which two queries ask the same

Source = Literal["student", "signals"]


class QueryRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for a new list for the profile as it is; a newer request of the same reader replaces it."""

    user_id: str
    profile: UserProfile
    profile_fingerprint: str
    requested_at: int  # UTC ms
    accepted_at: int = 0  # UTC ms at which the broker took the newest event behind the request: the start of freshness


class QueryList(msgspec.Struct, frozen=True, kw_only=True):
    """What was written for a reader, and by which model. `source` is `signals` when no usable list could be written."""

    user_id: str
    queries: tuple[str, ...]  # 1-5 of the student's; the reader's own latest signals when source is `signals`
    signals: tuple[str, ...]  # the reader's latest cleaned signals, stored as queries beside them
    source: Source
    profile_fingerprint: str
    model: str
    model_version: str
    prompt_version: str
    generated_at: int  # UTC ms
    expires_at: int  # UTC ms
    accepted_at: int = 0  # copied from the request


_SEPARATORS = re.compile(r"[;\n\r|•]+")
_ENUMERATION = re.compile(r"^\s*(?:[-*•–·>#]+\s*|\(?\d{1,2}[.):]\s+)")
_LINK_OR_MARKUP = re.compile(r"https?:|www\.|://|<[^>]*>|</|\[[^\]]*\]\(|```|\{|\}|\\\w|@\w+\.", re.IGNORECASE)
_TIDY = re.compile(r"\s+")
_WORD = re.compile(r"\w+")
_EDGES = " \t\"'`“”‘’«».,:;!-–—*_"


def parse_queries(text: str, *, limit: int = MAX_QUERIES) -> tuple[str, ...]:
    """At most `limit` clean, distinct queries in the order written; () when nothing usable is in `text`. Never raises.

    Dropped: empty, over-long, with a link or markup, without a letter, repeated, near-copies of an earlier one.
    """
    kept: list[str] = []
    for piece in _SEPARATORS.split(text):
        query = _tidy(piece)
        if _usable(query) and not any(_near_copy(query, earlier) for earlier in kept):
            kept.append(query)
        if len(kept) == limit:
            break
    return tuple(kept)


def distinct_queries(texts: Sequence[str], *, limit: int) -> tuple[str, ...]:
    """The reader's own signals as queries: shortened to the limit of words and characters, near-copies dropped."""
    return parse_queries("\n".join(_shorten(text) for text in texts), limit=limit)


def signals_as_queries(profile: UserProfile, *, limit: int) -> tuple[str, ...]:
    """At most `limit` of the reader's latest distinct signals, cut to queries: clicks on news take the first places, up
    to `CLICK_SHARE` of them, whatever is newest the others; each part newest first."""
    rows = list(latest_signals(profile))
    clicks = [signal.text for kind, signal in rows if kind == "click"][: round(limit * CLICK_SHARE)]
    first = frozenset(clicks)
    rest = [signal.text for _, signal in rows if signal.text not in first]
    return distinct_queries([*clicks, *rest], limit=limit)


def _shorten(text: str) -> str:
    flat = _SEPARATORS.sub(" ", text)
    words = flat.split()[:MAX_QUERY_WORDS]
    while words and len(" ".join(words)) > MAX_QUERY_CHARACTERS:
        words.pop()
    return " ".join(words) or flat[:MAX_QUERY_CHARACTERS]


def _tidy(piece: str) -> str:
    """Without enumeration and quotes, however nested: parsing a written list again must change nothing."""
    before, query = "", _TIDY.sub(" ", piece)
    while query != before:
        before, query = query, _ENUMERATION.sub("", query).strip(_EDGES)
    return query


def _usable(query: str) -> bool:
    return (
        0 < len(query) <= MAX_QUERY_CHARACTERS
        and query.isprintable()
        and len(query.split()) <= MAX_QUERY_WORDS
        and any(character.isalpha() for character in query)
        and not _LINK_OR_MARKUP.search(query)
        and not _stutters(query)
    )


def _stutters(query: str) -> bool:
    """A small model's commonest fault: `nfl nfl nfl bowl`."""
    words = _WORD.findall(query.casefold())
    return len(words) >= 3 and len(set(words)) * 2 < len(words)


def _near_copy(query: str, earlier: str) -> bool:
    ours, theirs = set(_WORD.findall(query.casefold())), set(_WORD.findall(earlier.casefold()))
    return bool(ours & theirs) and len(ours & theirs) / len(ours | theirs) >= NEAR_COPY_OVERLAP
