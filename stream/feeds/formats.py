"""Which kind of source it is, told from how it begins."""

import gzip
import re
import zlib
from pathlib import Path
from typing import Literal, get_args
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from schemas.errors import UsageError
from stream.feeds.addresses import is_web
from stream.feeds.line_files import GZIP_MAGIC, open_bytes
from stream.feeds.mind import is_behaviors, is_news
from stream.feeds.tables import DELIMITERS

Format = Literal["rss", "sitemap", "mind", "jsonl", "csv", "parquet", "huffpost", "list"]
FORMATS: tuple[Format, ...] = get_args(Format)
DOCUMENTS: frozenset[Format] = frozenset({"rss", "sitemap", "list"})  # read whole, and may be addresses
HEAD_BYTES = 65_536
_ROOT = re.compile(rb"<(?:\w+:)?(rss|feed|RDF|urlset|sitemapindex|opml|html)\b", re.IGNORECASE)
_BY_ROOT: dict[bytes, Format] = {
    b"rss": "rss", b"feed": "rss", b"rdf": "rss", b"html": "rss",  # an HTML page is refused there, with its feed's link
    b"urlset": "sitemap", b"sitemapindex": "sitemap", b"opml": "list",
}  # fmt: skip


def recognise(path: Path) -> Format:
    """Raises UsageError when the file cannot be read or is of no known kind."""
    with open_bytes(path) as file:
        try:
            head = file.read(HEAD_BYTES)
        except (OSError, EOFError) as error:
            raise UsageError(f"cannot read {path}: {error}") from error
    return format_of(head, str(path))


def format_of(head: bytes, name: str) -> Format:
    """The kind of a source of which `head` is the beginning; raises UsageError naming it when it is of none."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise UsageError(f"{name} is empty")
    if text.startswith(b"PAR1"):
        return "parquet"
    if text.startswith(b"{"):
        return "jsonl"
    if text.startswith(b"<") or head.startswith((b"\xff\xfe<", b"\xfe\xff\0<")):
        return _markup_format(head.replace(b"\0", b""))
    return _text_format(text.decode("utf-8", "replace"), name)


def list_of_feeds(body: bytes, name: str) -> list[str]:
    """The addresses in an OPML document, or in a text with one a line (`#` begins a remark)."""
    if body.lstrip().startswith((b"<", b"\xef\xbb\xbf<")):
        try:
            outlines = fromstring(body).iter("outline")
        except (ParseError, ValueError, DefusedXmlException) as error:
            raise UsageError(f"{name} is not sound OPML: {error}") from error
        addresses = [outline.get("xmlUrl", "").strip() for outline in outlines]
    else:
        addresses = [line.partition(" #")[0].strip() for line in body.decode("utf-8-sig", "replace").splitlines()]
    found = list(dict.fromkeys(address for address in addresses if is_web(address)))
    if not found:
        raise UsageError(f"{name} names no feed: one http or https address a line, or OPML with xmlUrl")
    return found


def unpacked(body: bytes, most_bytes: int, name: str) -> bytes:
    """`body`, unpacked when it is a gzip file; raises UsageError when it is broken or larger than `most_bytes`."""
    if not body.startswith(GZIP_MAGIC):
        return body
    packed = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        plain = packed.decompress(body, most_bytes)
    except (zlib.error, gzip.BadGzipFile) as error:
        raise UsageError(f"{name} is a broken gzip file: {error}") from error
    if packed.unconsumed_tail:
        raise UsageError(f"{name} is larger than {most_bytes / 2**20:.0f} MiB when unpacked")
    if not packed.eof:
        raise UsageError(f"{name} is a gzip file that breaks off")
    return plain


def _markup_format(head: bytes) -> Format:
    root = _ROOT.search(head)
    return _BY_ROOT[root[1].lower()] if root else "rss"


def _text_format(text: str, name: str) -> Format:
    lines = [line for line in text.splitlines() if line.strip()]
    if is_news(lines[0]) or is_behaviors(lines[0]):
        return "mind"
    if all(is_web(line.partition(" #")[0].strip()) or line.startswith("#") for line in lines[:20]):
        return "list"
    if any(delimiter in lines[0] for delimiter in DELIMITERS):
        return "csv"
    raise UsageError(f"{name} is of no known kind; say which with --format {'|'.join(FORMATS)}")
