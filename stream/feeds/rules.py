"""How what a source tells becomes an article: one function for feeds, sitemaps and tables."""

import hashlib
from typing import Literal

import msgspec

from schemas.article import Article
from schemas.codec import ARTICLES
from schemas.errors import InvalidRecord
from stream.feeds.addresses import host_of, is_web, stable_id
from stream.feeds.dates import parse_date, plausible
from stream.feeds.rows import BadLine, Fields, Left, Outcome, Taken
from stream.feeds.text import plain_text, wanted_language

TITLE_CHARACTERS, SUMMARY_CHARACTERS, NAME_CHARACTERS = 500, 8_000, 128

Undated = Literal["arrival", "refuse"]


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for all articles of one reading of a source."""

    now_ms: int
    arrived_ms: int = 0  # the date of articles without one; 0 = now
    languages: tuple[str, ...] = ("en",)
    undated: Undated = "arrival"  # an article without a plausible date is of its arrival, or refused

    @property
    def arrival_ms(self) -> int:
        return self.arrived_ms or self.now_ms


def to_article(fields: Fields, rules: Rules) -> Taken | Left:
    """Raises InvalidRecord, naming the field, for what cannot be an article."""
    if not wanted_language(fields.language, rules.languages):
        return Left("language")
    if fields.url and not is_web(fields.url):
        raise InvalidRecord(f"url: not an http or https address: {fields.url[:80]}")
    if not fields.url and not fields.article_id:
        raise InvalidRecord("url: missing")
    source = plain_text(fields.source, NAME_CHARACTERS) or host_of(fields.url)
    published_at, redated = _published(fields.published_at, rules)
    article = Article(
        article_id=fields.article_id or stable_id(source=source, guid=fields.guid, url=fields.url),
        title=plain_text(fields.title, TITLE_CHARACTERS),
        summary=plain_text(fields.summary, SUMMARY_CHARACTERS),
        url=fields.url,
        source=source,
        category=plain_text(fields.category, NAME_CHARACTERS) or None,
        published_at=published_at,
        expires_at=_named("expires_at", fields.expires_at),
    )
    return Taken(checked(article), redated=redated)


def checked(article: Article) -> Article:
    """`article`, when it keeps the bounds of the contract; raises InvalidRecord naming the field."""
    return ARTICLES.decode(ARTICLES.encode(article))


def fingerprint_of(outcome: Taken) -> str:
    """The same for two readings of an article that did not change. A date that we gave is no part of it, nor is the
    expiry that an option gives."""
    record = outcome.record
    if isinstance(record, Article):
        record = msgspec.structs.replace(
            record, expires_at=None, published_at=0 if outcome.redated else record.published_at
        )
    return hashlib.blake2b(msgspec.json.encode(record), digest_size=8).hexdigest()


def try_article(fields: Fields, rules: Rules, number: int) -> Outcome:
    """As `to_article`, with a bad row given instead of raised."""
    try:
        return to_article(fields, rules)
    except InvalidRecord as error:
        return BadLine(number, str(error))


def _published(value: object, rules: Rules) -> tuple[int, bool]:
    if rules.undated == "refuse":
        published = _named("published_at", value)
        if published is None or not plausible(published, rules.now_ms):
            raise InvalidRecord(f"published_at: {'missing' if published is None else 'before 1990 or in the future'}")
        return published, False
    try:
        published = parse_date(value)
    except InvalidRecord:
        published = None
    if published is not None and plausible(published, rules.now_ms):
        return published, False
    return rules.arrival_ms, True


def _named(field: str, value: object) -> int | None:
    try:
        return parse_date(value)
    except InvalidRecord as error:
        raise InvalidRecord(f"{field}: {error}") from error
