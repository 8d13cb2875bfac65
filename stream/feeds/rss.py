"""RSS and Atom documents, read by feedparser, which is never given an address to fetch."""

import io
import re
from calendar import timegm
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin
from xml.sax import SAXException

import feedparser
import msgspec

from schemas.errors import UsageError
from stream.feeds.addresses import host_of, is_web
from stream.feeds.rows import Fields, Outcome, Taken
from stream.feeds.rules import Rules, try_article

_END = re.compile(rb"</\s*(rss|feed|rdf:RDF)\s*>\s*(<!--.*?-->\s*)*\Z", re.IGNORECASE | re.DOTALL)
_TAIL_BYTES = 4_096
_FEED_LINK = re.compile(r"<link\b[^>]*\btype=[\"']application/(?:rss|atom)\+xml[\"'][^>]*>", re.IGNORECASE)
_HREF = re.compile(r"\bhref=[\"']([^\"']+)[\"']", re.IGNORECASE)


class FeedDocument(msgspec.Struct, frozen=True):
    """What a document gives. When it is not `whole`, it should be read again soon."""

    outcomes: tuple[Outcome, ...]
    whole: bool = True
    remark: str = ""


def read_feed(body: bytes, rules: Rules, *, address: str, content_type: str = "") -> FeedDocument:
    """The articles of a feed. A broken document gives the entries in front of the break that are whole.

    Raises UsageError when it is no feed, naming `address`, and the feed that it links to when it is a page.
    """
    headers = {"content-type": content_type} if content_type else {}
    parsed = feedparser.parse(io.BytesIO(body), response_headers=headers, sanitize_html=False)
    if not parsed.version and not parsed.entries:
        raise UsageError(_no_feed(body, address))
    broken = isinstance(parsed.get("bozo_exception"), SAXException)
    cut = broken and not _END.search(body[-_TAIL_BYTES:])
    entries = parsed.entries[:-1] if cut else parsed.entries  # the last one may lack half of its text
    mended = isinstance(parsed.get("bozo_exception"), feedparser.CharacterEncodingOverride)
    outcomes = tuple(_outcomes(entries, parsed.feed, rules, address, mended))
    return FeedDocument(outcomes, whole=not cut, remark=_remark(parsed, broken, cut, len(entries)))


def _outcomes(entries: list[Any], feed: Any, rules: Rules, address: str, mended: bool) -> Iterator[Outcome]:
    source = host_of(feed.get("link", "")) or host_of(address)
    for number, entry in enumerate(entries, start=1):
        outcome = try_article(_fields(entry, feed, source), rules, number)
        if mended and isinstance(outcome, Taken):
            outcome = msgspec.structs.replace(outcome, mended=True)
        yield outcome


def _fields(entry: Any, feed: Any, source: str) -> Fields:
    guid = str(entry.get("id", ""))
    url = str(entry.get("link", "")) or (guid if is_web(guid) else "")
    own_source = entry.get("source") or {}
    tags = [tag.get("term") or tag.get("label") for tag in entry.get("tags", [])]
    return Fields(
        title=entry.get("title", ""),
        url=url,
        guid=guid,
        summary=_summary(entry),
        source=source or str(own_source.get("title", "")),
        category=next((tag for tag in tags if tag), ""),
        language=_language(entry, feed),
        published_at=_published(entry),
    )


def _summary(entry: Any) -> str:
    contents = [part.get("value", "") for part in entry.get("content", [])]
    return str(entry.get("summary") or next((text for text in contents if text), ""))


def _language(entry: Any, feed: Any) -> str:
    details = (entry.get(name) or {} for name in ("title_detail", "summary_detail"))
    own = entry.get("language") or next((d["language"] for d in details if d.get("language")), "")
    return str(own or feed.get("language", ""))


def _published(entry: Any) -> object:
    """Seconds since 1970 where feedparser understands the date, else its text."""
    for name in ("published", "updated", "created"):
        if f"{name}_parsed" in entry and (parsed := entry[f"{name}_parsed"]):
            seconds = timegm(parsed)
            return seconds if seconds >= 0 else None
        if entry.get(name):
            return str(entry[name])
    return None


def _remark(parsed: Any, broken: bool, cut: bool, entries: int) -> str:
    if broken:
        where = "breaks off" if cut else "is broken XML"
        return f"the feed {where} ({parsed.bozo_exception}); {entries} whole entries were read"
    return ""


def _no_feed(body: bytes, address: str) -> str:
    text = body[:200_000].decode("utf-8", "replace")
    if re.search(r"<html\b|<!doctype html", text[:5_000], re.IGNORECASE):
        links = [href[1] for link in _FEED_LINK.findall(text) if (href := _HREF.search(link))]
        hint = f"it links to this feed: {urljoin(address, links[0])}" if links else "look for its feed's address"
        return f"{address} is an HTML page, not a feed; {hint}"
    return f"{address} is neither RSS nor Atom" + ("" if body.strip() else ": it is empty")
