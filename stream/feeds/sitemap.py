"""News sitemaps (sitemaps.org with Google's news extension) and sitemap indexes, parsed by defusedxml."""

from collections.abc import Iterator
from xml.etree.ElementTree import Element, ParseError

import msgspec
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from schemas.errors import UsageError
from stream.feeds.addresses import is_web
from stream.feeds.rows import Fields, Left, Outcome
from stream.feeds.rules import Rules, try_article

MAX_CHILDREN = 500  # of an index; the newest ones
_MAP = "{http://www.sitemaps.org/schemas/sitemap/0.9}"
_NEWS = "{http://www.google.com/schemas/sitemap-news/0.9}"


class SitemapDocument(msgspec.Struct, frozen=True):
    """Articles, or the addresses of further sitemaps."""

    outcomes: tuple[Outcome, ...] = ()
    children: tuple[str, ...] = ()


def read_sitemap(body: bytes, rules: Rules, *, address: str) -> SitemapDocument:
    """Raises UsageError naming `address` when it is no sitemap, or a broken one: nothing of that is taken."""
    try:
        root: Element = fromstring(body, forbid_dtd=True)
    except (ParseError, ValueError, LookupError, DefusedXmlException) as error:
        raise UsageError(f"{address} is not a sound sitemap: {error or type(error).__name__}") from error
    if root.tag == f"{_MAP}sitemapindex":
        return SitemapDocument(children=_children(root))
    if root.tag != f"{_MAP}urlset":
        raise UsageError(f"{address} is not a sitemap: its root is <{root.tag.rpartition('}')[2]}>")
    return SitemapDocument(outcomes=tuple(_outcomes(root, rules)))


def _children(root: Element) -> tuple[str, ...]:
    entries = [(_text(entry, f"{_MAP}lastmod"), _text(entry, f"{_MAP}loc")) for entry in root.iter(f"{_MAP}sitemap")]
    newest = sorted(entries, key=lambda entry: entry[0], reverse=True)
    return tuple(dict.fromkeys(address for _, address in newest if is_web(address)))[:MAX_CHILDREN]


def _outcomes(root: Element, rules: Rules) -> Iterator[Outcome]:
    for number, entry in enumerate(root.iter(f"{_MAP}url"), start=1):
        news = entry.find(f"{_NEWS}news")
        yield Left("no_news") if news is None else try_article(_fields(entry, news), rules, number)


def _fields(entry: Element, news: Element) -> Fields:
    publication = f"{_NEWS}publication/{_NEWS}"
    keywords = _text(news, f"{_NEWS}keywords")
    return Fields(
        title=_text(news, f"{_NEWS}title"),
        url=_text(entry, f"{_MAP}loc"),
        source=_text(news, f"{publication}name"),
        language=_text(news, f"{publication}language"),
        category=keywords.partition(",")[0].strip(),
        published_at=_text(news, f"{_NEWS}publication_date") or _text(entry, f"{_MAP}lastmod"),
    )


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()
